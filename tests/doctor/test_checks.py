"""What is broken on purpose is found, by the check that is about it, with a way to mend it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from tests.images.dicom_files import lossless_jpeg

from clearmargin import doctor
from clearmargin.cli import main
from clearmargin.doctor import CHECKS, Outcome, decoding, machine, run_checks, software
from clearmargin.doctor.outcome import failed, ok, warning
from clearmargin.errors import DataError

Usage = namedtuple("Usage", "total used free")
_GIB = 2**30


def of(check: Callable[[], Outcome]) -> Outcome:
    ((_, outcome),) = run_checks({"it": check})
    assert (outcome.fix == "") == (outcome.status == "ok")
    assert "\n" not in outcome.message + outcome.fix
    return outcome


def test_this_installation_passes_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in answer["checks"]] == list(CHECKS)
    assert answer["ok"]
    failures = [check for check in answer["checks"] if check["status"] == "failed"]
    assert failures == []
    by_name = {check["name"]: check["message"] for check in answer["checks"]}
    assert "JPEG-LS, DICOM JPEG 2000: as they were drawn" in by_name["decoders"]
    assert "of a drawn image" in by_name["whole"]
    assert "agrees with NumPy" in by_name["onnxruntime"]


def test_what_a_check_raises_is_a_failed_check_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash() -> Outcome:
        raise RuntimeError("two\nlines")

    def refuse() -> Outcome:
        raise DataError("the key is gone")

    checks = {
        "a": crash, "libraries": refuse, "c": lambda: ok("fine"), "d": lambda: warning("slow", "Wait."),
        "e": lambda: failed("gone", "Fetch it."),
    }  # fmt: skip
    found = dict(run_checks(checks))
    assert list(found) == list(checks)
    assert [outcome.status for outcome in found.values()] == ["failed", "failed", "ok", "warning", "failed"]
    assert (found["a"].message, found["libraries"].message) == ("RuntimeError: two lines", "the key is gone")
    monkeypatch.setattr(doctor, "run_checks", lambda: run_checks(checks))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "warning   d            slow\n                       fix: Wait.\n" in shown.out
    assert "5 checks: 3 failed, 1 with a drawback" in shown.out
    assert shown.err == ""
    del checks["a"], checks["libraries"], checks["e"]
    assert main(["doctor"]) == 0
    assert "2 checks: 1 with a drawback" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "found", "says", "fix"),
    [
        ("h5py", None, "not installed: h5py", "pip install h5py"),
        ("numpy", "1.26", "versions that do not fit: numpy 1.26, needed >=2.0", "pip install --upgrade"),
    ],
)
def test_a_library_that_is_missing_or_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, found: str | None, says: str, fix: str
) -> None:
    def told(distribution: str) -> str:
        if distribution != name:
            return version(distribution)
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(software, "version", told)
    outcome = of(software.check_libraries)
    assert (outcome.status, outcome.message) == ("failed", says)
    assert outcome.fix.startswith(fix)


def test_a_library_that_cannot_be_imported_or_ends_the_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noisy_zz.py").write_text("print('hello')")
    (tmp_path / "broken_zz.py").write_text("raise OSError('libgomp.so.1: cannot open')")
    (tmp_path / "deadly_zz.py").write_text("import os; os._exit(9)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    broken = software._import(["noisy_zz", "broken_zz", "absent_zz", "deadly_zz", "json"])
    assert broken == {
        "broken_zz": "OSError: libgomp.so.1: cannot open",
        "absent_zz": "ModuleNotFoundError: No module named 'absent_zz'",
        "deadly_zz": "it ends the process (9)",
    }
    monkeypatch.setattr(software, "_import", lambda modules: broken)
    outcome = of(software.check_libraries)
    assert outcome.status == "failed"
    assert outcome.message.startswith("broken_zz cannot be imported: OSError: libgomp.so.1: cannot open (and absent_zz")


def test_every_library_is_tried_under_the_name_of_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(software, "_import", lambda modules: tried.extend(modules) or {})
    assert of(software.check_libraries).status == "ok"
    assert {"PIL", "sklearn", "gdcm", "jpeg_ls", "onnx_ir", "torch", "lightning_fabric"} <= set(tried)
    assert not {"timm", "mlflow"} & set(tried)


def test_a_package_that_is_not_installed_is_a_drawback(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_name: str) -> list[str]:
        raise PackageNotFoundError("clearmargin")

    monkeypatch.setattr(software, "requires", gone)
    assert of(software.check_libraries).status == "warning"


def test_extras_are_listed_with_their_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = ["numpy>=2", 'h5py>=1; extra == "one"', 'absent-zz>=1; extra == "two"', 'scipy>=99; extra == "three"']
    monkeypatch.setattr(software, "requires", lambda _name: stated)
    monkeypatch.setattr(software, "_extras", lambda: ["one", "two"])
    assert of(software.check_extras) == ok('one; not installed: two (pip install "clearmargin[two]")')
    monkeypatch.setattr(software, "_extras", lambda: ["three"])
    outcome = of(software.check_extras)
    assert outcome.status == "warning"
    assert f"scipy {version('scipy')}, needed >=99" in outcome.message


def test_a_driver_that_torch_does_not_use_is_a_drawback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_NVIDIA", tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    outcome = of(software.check_torch)
    assert outcome.status == "warning"
    assert "an NVIDIA driver that it does not use" in outcome.message


def test_decoders_that_are_missing_or_show_another_picture_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import jpeg_ls

    def gone(*_: object) -> bytes:
        raise ImportError("no jpeg_ls")

    monkeypatch.setattr(jpeg_ls, "encode_buffer", gone)
    monkeypatch.setattr(decoding, "LOSSLESS_JPEG", lossless_jpeg(decoding.draw() + 1, 8, 1))
    monkeypatch.setattr(decoding, "_rle", lambda: b"\0" * 70)
    outcome = of(decoding.check_decoders)
    assert outcome.status == "failed"
    for words in ("DICOM JPEG-LS (cannot be written: ImportError: no jpeg_ls)",
                  "DICOM lossless JPEG (comes back as another picture)", "DICOM RLE ("):  # fmt: skip
        assert words in outcome.message
    assert "PNG" not in outcome.message


def test_the_lossless_jpeg_that_is_decoded_shows_what_is_drawn() -> None:
    assert lossless_jpeg(decoding.draw(), 8, 1) == decoding.LOSSLESS_JPEG


def test_a_python_that_is_too_old_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_wanted_python", lambda: ">=9.9")
    assert of(machine.check_python).message.endswith("and Clearmargin needs >=9.9")
    monkeypatch.undo()
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert of(machine.check_python).status == "failed"


def test_a_cache_that_cannot_be_written_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARMARGIN_CACHE", "/proc/nowhere")
    outcome = of(machine.check_cache)
    assert outcome.status == "failed"
    assert outcome.message.startswith("/proc/nowhere/stores: nothing can be written there")
    assert "CLEARMARGIN_CACHE" in outcome.fix


@pytest.mark.parametrize(("free", "status"), [(_GIB // 8, "failed"), (2 * _GIB, "warning"), (50 * _GIB, "ok")])
def test_a_disk_with_little_room_is_told(free: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(100 * _GIB, 0, free))
    outcome = of(machine.check_cache)
    assert outcome.status == status
    assert f"{free / _GIB:.1f} GiB free" in outcome.message


@pytest.mark.parametrize(
    ("files", "memory", "cores"),
    [
        ({"memory.max": "536870912", "cpu.max": "150000 100000"}, "failed", "warning"),
        ({"memory.max": "2147483648", "cpu.max": "max 100000"}, "warning", "ok"),
        ({"memory.max": "max"}, "ok", "ok"),
        ({"memory/memory.limit_in_bytes": "536870912", "cpu/cpu.cfs_quota_us": "200000",
          "cpu/cpu.cfs_period_us": "100000"}, "failed", "warning"),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "ok", "ok"),
    ],
)  # fmt: skip
def test_the_limits_of_a_container_count(
    files: dict[str, str], memory: str, cores: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4 * 2**20}[name])
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)))
    assert (of(machine.check_memory).status, of(machine.check_cores).status) == (memory, cores)
    if cores == "warning":
        assert of(machine.check_cores).fix.startswith("Set OMP_NUM_THREADS=2;")


def test_few_open_files_are_a_drawback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (256, 4096))
    outcome = of(machine.check_open_files)
    assert (outcome.status, outcome.fix) == ("warning", "Run: ulimit -n 1024")


def test_a_key_that_others_can_read_or_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    monkeypatch.setenv("CLEARMARGIN_KEY_FILE", str(key))
    assert of(machine.check_key).message.startswith("none yet")
    assert not key.exists()
    key.write_text("k" * 64)
    key.chmod(0o644)
    assert of(machine.check_key).fix == f"Run: chmod 600 '{key}'"
    key.chmod(0o600)
    assert of(machine.check_key).status == "ok"
    key.write_text("short")
    assert of(machine.check_key).message.startswith(f"{key}: too short for a key")


def test_output_that_is_not_utf8_is_a_drawback() -> None:
    code = "from clearmargin.doctor.machine import check_file_names as f; print(f().status, f().message)"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert shown.stdout == "warning utf-8 on disk, but output is ascii: other letters are shown as codes\n"


def test_a_port_that_is_taken_is_a_drawback(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(machine, "PORT", taken.getsockname()[1])
        outcome = of(machine.check_port)
    assert outcome.status == "warning"
    assert "cannot be opened (Address already in use)" in outcome.message
    assert of(machine.check_port).status == "ok"


def test_reports_that_somebody_switched_on_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert of(machine.check_network).status == "warning"


def test_the_list_of_checks_imports_nothing_heavy() -> None:
    code = (
        "import sys, clearmargin.doctor; assert not {'torch', 'numpy', 'pandas', 'pydantic', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
