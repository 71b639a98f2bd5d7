"""Risky kinds are decoded in a child, with the same pixels; a child that hangs or dies costs one file, not the job."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from clearmargin.errors import ImageError
from clearmargin.images import isolate
from clearmargin.images.isolate import decode_isolated
from clearmargin.images.limits import Limits
from clearmargin.images.read import decode_image

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of this kind are not on Windows")


@pytest.fixture(autouse=True)
def _fresh_children() -> Iterator[None]:
    isolate._children.close()
    yield
    isolate._children.close()


def tiff(value: int = 0, *, compression: str = "tiff_lzw", side: int = 20) -> bytes:
    pixels = (np.arange(side * side * 3).reshape(side, side, 3) + value).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", compression=compression)
    return stream.getvalue()


def idle_pids() -> list[int]:
    return [child._process.pid for child in isolate._children._idle]


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_a_compressed_tiff_goes_through_a_child_and_gives_the_same_pixels(compression: str) -> None:
    data = tiff(compression=compression)
    there = decode_image(data, "a.tif")
    assert len(idle_pids()) == 1
    here = decode_image(data, "a.tif", isolated=False)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    assert (there.format, there.pixels.dtype) == (here.format, here.pixels.dtype)


def test_plain_kinds_need_no_child() -> None:
    for kind in ("PNG", "JPEG", "BMP", "TIFF"):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (1, 2, 3)).save(stream, kind)
        decode_image(stream.getvalue(), "a")
    assert idle_pids() == []


def test_an_error_of_the_child_is_the_same_error() -> None:
    data = tiff()[:-5]
    with pytest.raises(ImageError) as here:
        decode_image(data, "a.tif", isolated=False)
    with pytest.raises(ImageError) as there:
        decode_isolated(data, "a.tif")
    assert (there.value.kind, there.value.reason, there.value.path) == (here.value.kind, here.value.reason, "a.tif")


def test_a_child_is_kept_for_the_next_file() -> None:
    decode_isolated(tiff(), "a")
    first = idle_pids()
    decode_isolated(tiff(1), "b")
    assert idle_pids() == first


def test_a_child_that_hangs_is_killed_and_the_next_file_is_read() -> None:
    decode_isolated(tiff(), "a")
    (pid,) = idle_pids()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ImageError, match=r"its decoder took longer than 0\.3 s"):
        decode_isolated(tiff(), "a", Limits(max_seconds=0.3))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert decode_isolated(tiff(), "a")[0].shape == (20, 20, 3)


def test_a_child_that_is_killed_at_work_costs_nothing() -> None:
    decode_isolated(tiff(), "a")
    (pid,) = idle_pids()
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    assert decode_isolated(tiff(), "a")[0].shape == (20, 20, 3)
    assert idle_pids() != [pid]


def test_a_file_that_kills_two_children_is_refused_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def die(child: isolate._Child, *_question: object) -> None:
        asked.append(child._process.pid)
        child.kill()

    with monkeypatch.context() as patch:
        patch.setattr(isolate._Child, "ask", die)
        with pytest.raises(ImageError, match="its decoder crashed"):
            decode_isolated(tiff(), "a")
    assert len(set(asked)) == 2
    assert decode_isolated(tiff(), "a")[0].shape == (20, 20, 3)


def test_every_kind_goes_through_a_child_where_the_limits_say_so() -> None:
    for kind in ("PNG", "JPEG", "BMP", "TIFF"):
        stream = io.BytesIO()
        Image.effect_noise((8, 8), 40).convert("RGB").save(stream, kind)
        there = decode_image(stream.getvalue(), "a", Limits(isolate="all"))
        assert len(idle_pids()) == 1
        np.testing.assert_array_equal(there.pixels, decode_image(stream.getvalue(), "a").pixels)


def test_a_child_that_died_while_idle_costs_nothing() -> None:
    decode_isolated(tiff(), "a")
    child = isolate._children._idle[0]
    child.kill()
    child._process.wait()
    assert decode_isolated(tiff(), "a")[0].shape == (20, 20, 3)


def test_many_threads_get_their_own_pixels() -> None:
    files = [tiff(value) for value in range(24)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda data: decode_isolated(data, "a")[0][0, 0, 0], files))
    assert results == list(range(24))
    assert len(idle_pids()) <= (os.cpu_count() or 1)


def test_an_answer_larger_than_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(ImageError) as caught:
        decode_isolated(tiff(), "a", Limits(max_pixels=399))
    assert caught.value.kind == "too_large"


def test_children_end_with_their_parent() -> None:
    script = (
        "import io\nfrom PIL import Image\n"
        "from clearmargin.images import isolate\n"
        "import io\nfrom PIL import Image\n"
        "stream = io.BytesIO(); Image.new('RGB', (8, 8)).save(stream, 'TIFF', compression='tiff_lzw')\n"
        "isolate.decode_isolated(stream.getvalue(), 'a')\n"
        "print(isolate._children._idle[0]._process.pid, flush=True)\n"
        "import os; os._exit(0)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    pid = int(result.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        threading.Event().wait(0.05)
    pytest.fail("the child outlived its parent")


def test_a_child_writes_no_file_and_keeps_to_its_memory() -> None:
    script = (
        "import resource\nfrom clearmargin.images.child import _limit_self\n_limit_self()\n"
        "print([resource.getrlimit(getattr(resource, 'RLIMIT_' + what))[0] for what in ('AS', 'FSIZE', 'CORE')])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"[{4 << 30}, 0, 0]"
