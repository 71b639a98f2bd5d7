"""What every test shares: a fixed seed, no network, a home of its own, and small images on disk."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # for tests that import ONNX Runtime themselves
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny batches: more threads only wait for each other

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from tests.slides import Placed
    from tests.small_run import SmallRun

CHROMIUM = Path("/usr/bin/chromium")
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    # A shell starts jobs in the background with Ctrl-C ignored; tests that send it need Python's own answer.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CLEARMARGIN_CACHE", str(home / "cache"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and host not in (
            "127.0.0.1",
            "127.0.0.2",
            "::1",
            "localhost",
        ):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def real_data() -> Path:
    """The real images beside the project; where they are required, their absence is a failure."""
    if REAL_DATA.is_dir():
        return REAL_DATA
    if os.environ.get("CLEARMARGIN_REQUIRE_REAL") == "1":
        pytest.fail(f"the real images are required and not at {REAL_DATA}")
    pytest.skip("the real images are not beside this checkout")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser; of each module its own, since while one is open no other event loop runs in this thread."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists() and os.environ.get("CLEARMARGIN_REQUIRE_BROWSER") != "1":
        pytest.skip(f"{CHROMIUM} is absent; CLEARMARGIN_REQUIRE_BROWSER=1 makes this an error")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def make_folder(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Writes a small IDC-style data set: every patient has benign and malignant patches that differ in colour.

    `make_folder(patients=8, per_class=4, px=16, layout="idc"|"folder")` gives its root.
    """

    def build(*, patients: int = 8, per_class: int = 4, px: int = 16, layout: str = "idc", name: str = "data") -> Path:
        root = tmp_path / name
        generator = np.random.default_rng(0)
        for patient in range(patients):
            tint = generator.integers(-15, 16)
            for label in (0, 1):
                for number in range(per_class):
                    base = np.array([200, 150, 190]) if label == 0 else np.array([130, 70, 150])
                    noise = generator.integers(-40, 41, (px, px, 3))
                    pixels = np.clip(base + tint + noise, 0, 255).astype(np.uint8)
                    x, y = 1 + px * number, 1 + px * label
                    if layout == "idc":
                        file = root / f"P{patient:02}" / str(label) / f"P{patient:02}_idx5_x{x}_y{y}_class{label}.png"
                    else:
                        file = root / ("malignant" if label else "benign") / f"P{patient:02}_{number}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(file)
        return root

    yield build


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A finished run on small images; see `small_run.py`."""
    from tests.small_run import train_small

    return train_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Placed:
    """A run whose patches have places on their slides, cross-fitted, with a field; see `slides.py`."""
    from tests.slides import Placed, make_quick, slides_config, write_slides

    from clearmargin.training.log import RunLog
    from clearmargin.types import Listener
    from clearmargin.workflow import audit_data, pack_images, run_training

    root = tmp_path_factory.mktemp("placed")
    data, others = write_slides(root / "data", patients=12), write_slides(root / "others", patients=4, seed=1)
    config = slides_config(data)
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, root / "cache")
        (root / "audit").mkdir()
        log = RunLog(root / "audit" / "log.jsonl", Listener())
        images = pack_images(audit_data(config, root / "audit", log), config, log)
        run_training(config, root / "run", images=images, with_report=False)
    return Placed(data, others, root / "run", config, images)


@pytest.fixture
def quick_networks(placed: Placed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks and the export of `placed`, for tests that train some of their own."""
    from tests.slides import make_quick

    make_quick(monkeypatch, placed.run.parent / "cache")
