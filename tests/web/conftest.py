"""The application in process over a small bundle that works."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.bundle.small_bundle import write_working
from tests.web.in_process import InProcess, in_process

from clearmargin.images.preprocess import Preprocessing
from clearmargin.web.app import make_app
from clearmargin.web.limits import ServeLimits
from clearmargin.web.served import load_served
from clearmargin.web.serving import ServeSettings

MakeClient = Callable[..., InProcess]
_LIMITS = ServeLimits()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for 32 × 32 patches in colour, without a gate."""
    folder = tmp_path_factory.mktemp("served") / "small"
    write_working(folder, name="residual", spec=Preprocessing(width=32, height=32))
    return folder


@pytest.fixture
def make_client(bundle: Path, tmp_path: Path) -> Iterator[MakeClient]:
    """`make_client(limits=…, token=…)` gives a client of an application that lives as long as the test."""
    numbers = count()
    with ExitStack() as stack:

        def make(
            *bundles: Path,
            limits: ServeLimits = _LIMITS,
            gate: bool = True,
            batching: bool = True,
            **settings: Any,
        ) -> InProcess:
            private, state = tmp_path / "private", tmp_path / f"state{next(numbers)}"
            private.mkdir(mode=0o700, exist_ok=True)
            served = load_served(bundles or [bundle], limits, gate=gate, batching=batching)
            app = make_app(served, ServeSettings(private, state, limits, **settings))
            return stack.enter_context(in_process(app))

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> InProcess:
    """A client of an application with everything as it is by default."""
    return make_client()


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """The folder in which uploads live as long as their request."""
    return tmp_path / "private"


def png(seed: int = 0, px: int = 32) -> bytes:
    """A picture of noise around a colour that depends on the seed."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(60, 200, 3) + generator.integers(-50, 51, (px, px, 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def files(*named: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """The field `files` of a request, from names and bytes."""
    return [("files", each) for each in named]
