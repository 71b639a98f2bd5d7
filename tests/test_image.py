"""The container image, as far as it can be tested where no container can be built.

Its Dockerfile is read, its steps are run on a copy of what .dockerignore lets through, and what they install is whole.
"""

from __future__ import annotations

import fnmatch
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

import clearmargin

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "Dockerfile"


@cache
def instructions() -> list[tuple[str, str]]:
    """(keyword, the rest), lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", "", "\n".join(lines))
    found = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [(keyword, rest.strip()) for keyword, _, rest in found]


def all_of(keyword: str) -> list[str]:
    return [rest for word, rest in instructions() if word == keyword]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what .dockerignore lets through."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    wanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    unwanted = [pattern.removeprefix("**/") for pattern in patterns[1:] if not pattern.startswith("!")]
    assert all("/" not in name for name in (*wanted, *unwanted)), "a pattern that this test does not know"
    place = tmp_path_factory.mktemp("image") / "context"
    place.mkdir()
    for name in wanted:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns(*unwanted))
        else:
            shutil.copy(ROOT / name, place / name)
    return place


@pytest.fixture(scope="module")
def installed(context: Path) -> Path:
    """Where the package lies that the copy installs, with nothing else."""
    site = context.parent / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
         "--disable-pip-version-check", "--no-compile", "--target", site, "."],
        cwd=context, check=True, timeout=120,
    )  # fmt: skip
    return site


def test_only_what_is_built_from_reaches_the_builder(context: Path) -> None:
    assert {path.name for path in context.iterdir()} == {
        "constraints.txt", "pyproject.toml", "README.md", "LICENSE", "src",
    }  # fmt: skip
    assert not [path for path in context.rglob("*") if fnmatch.fnmatch(path.name, "__pycache__")]


def test_every_file_that_is_copied_is_there(context: Path) -> None:
    copied = [rest.split() for rest in all_of("COPY") if not rest.startswith("--from=")]
    sources = [source for words in copied for source in words[:-1]]
    assert {"constraints.txt", "pyproject.toml", "src"} <= set(sources)
    for source in sources:
        assert (context / source).exists(), source


def test_the_package_in_the_image_is_whole(installed: Path) -> None:
    source = ROOT / "src" / "clearmargin"
    for file in source.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            there = installed / "clearmargin" / file.relative_to(source)
            assert there.read_bytes() == file.read_bytes(), file
    for pattern in ("recipes/*.toml", "report/*.jinja", "report/checklists/*", "web/page/*.html", "web/page/*.js"):
        assert list((installed / "clearmargin").glob(pattern)), pattern


def test_the_command_of_the_image_is_the_one_that_is_installed(installed: Path) -> None:
    assert json.loads(all_of("ENTRYPOINT")[-1]) == ["clearmargin"]
    assert (installed / "bin" / "clearmargin").is_file()
    code = (
        "import sys, clearmargin; from clearmargin.cli import main; "
        "sys.exit(main(['--version']) or 'site' not in clearmargin.__file__)"
    )
    shown = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"clearmargin {clearmargin.__version__}\n"


@pytest.mark.parametrize("extras", ["", "backbones", "backbones, tracking"])
def test_what_is_installed_first_is_what_the_project_needs(context: Path, tmp_path: Path, extras: str) -> None:
    (step,) = [rest for rest in all_of("RUN") if "tomllib" in rest]
    make, install = step.split(" && ")
    assert install.strip() == "pip install --requirement /tmp/requirements.txt"
    made = tmp_path / "requirements.txt"
    make = make.replace("/tmp/requirements.txt", str(made)).replace("python", sys.executable, 1)
    subprocess.run(["sh", "-c", make], cwd=context, env={"EXTRAS": extras}, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = [*project["dependencies"]]
    for name in filter(None, map(str.strip, extras.split(","))):
        expected += project["optional-dependencies"][name]
    assert made.read_text().splitlines() == expected
    assert "PIP_CONSTRAINT=/source/constraints.txt" in " ".join(all_of("ENV"))


def test_no_pin_is_a_build_that_only_some_indexes_offer() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert [pin for pin in pins if "+" in pin] == []
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^=]+", pin) for pin in pins)


def test_the_image_runs_as_nobody_in_particular_and_writes_to_its_volume_alone() -> None:
    user = all_of("USER")[-1]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    last = instructions()[max(number for number, (word, _) in enumerate(instructions()) if word == "FROM") :]
    assert not [rest for word, rest in last[[word for word, _ in last].index("USER") :] if word == "RUN"]
    assert json.loads(all_of("VOLUME")[-1]) == ["/data"]
    environment = dict(pair.split("=", 1) for rest in (r for w, r in last if w == "ENV") for pair in rest.split())
    for name in ("HOME", "CLEARMARGIN_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "MPLCONFIGDIR"):
        assert PurePosixPath(environment[name]).parts[1] in ("data", "tmp"), name


def test_the_image_says_what_it_is_and_where_it_listens() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', " ".join(all_of("LABEL"))))
    assert labels["version"] == clearmargin.__version__
    assert labels["licenses"] == "Apache-2.0"
    assert "not a medical device" in labels["description"]
    assert all_of("EXPOSE") == ["8000"]


def test_the_image_is_built_without_names_of_hosts_and_with_fixed_bases() -> None:
    text = DOCKERFILE.read_text()
    assert "://" not in text.replace("http://127.0.0.1:8000", "")
    assert all(re.fullmatch(r"python:\$\{PYTHON_VERSION\}-slim( AS \w+)?", base) for base in all_of("FROM"))
    assert not [word for word, _ in instructions() if word in ("ADD", "MAINTAINER")]


class _Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/api/v1/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("command", "status", "healthy"),
    [("clearmargin serve RUN", 200, True), ("clearmargin serve RUN", 503, False), ("clearmargin train D", None, True)],
)
def test_a_server_is_healthy_while_it_answers_and_other_commands_while_they_run(
    command: str, status: int | None, healthy: bool, tmp_path: Path
) -> None:
    words = json.loads(all_of("HEALTHCHECK")[-1].partition(" CMD ")[2])
    assert words[:2] == ["python", "-c"]
    (tmp_path / "cmdline").write_bytes(b"\0".join(word.encode() for word in command.split()) + b"\0")
    _Health.status = status or 200
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = 1 if status is None else server.server_address[1]
        code = words[2].replace("/proc/1/cmdline", str(tmp_path / "cmdline")).replace(":8000", f":{port}")
        ended = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, check=False, timeout=30)
        server.shutdown()
    assert (ended.returncode == 0) == healthy, ended.stderr


@pytest.mark.skipif(
    shutil.which("hadolint") is None, reason="hadolint, which is not ours to install (GPL), is not here"
)
def test_hadolint_finds_nothing() -> None:
    found = subprocess.run(["hadolint", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")
