"""The packed images: one memory-mapped uint8 array, made once for given images and preprocessing.

A store is named by the hash of what is in it, so that a second run finds it, and a renamed folder does
too. Packing writes chunk by chunk with a checksum each: a killed run goes on where it stopped, and two
runs at once take turns. Memory is bounded by one chunk a thread. Random reads run at memory speed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from clearmargin.data.chunks import checksum, hold, open_array, open_partial
from clearmargin.data.manifest import Manifest
from clearmargin.errors import DataError, ImageError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.images.read import read_encoded
from clearmargin.types import Listener

_LAYOUT = 1
_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Store:
    """Images of one shape: `images` is a read-only uint8 memory map (N, H, W, C) in the manifest's order."""

    images: NDArray[np.uint8]
    path: Path
    packed: int
    """How many images this call packed; 0 when the store was there already."""

    def __len__(self) -> int:
        return len(self.images)


def cache_folder() -> Path:
    """Where stores are kept: $CLEARMARGIN_CACHE, else the user's cache folder."""
    return Path(os.environ.get("CLEARMARGIN_CACHE") or platformdirs.user_cache_dir("clearmargin")) / "stores"


def pack_store(
    manifest: Manifest, preprocessing: Preprocessing, *, folder: Path | None = None, listener: Listener = Listener()
) -> Store:
    """The store of the manifest's images under this preprocessing, packed now or found packed.

    Args:
        manifest: audited; sha256 must be known.
        preprocessing: the spec that each image is put through.
        folder: where stores are kept; `cache_folder()` by default.
        listener: hears the progress.

    Raises:
        DataError: the disk is full or not writable, or a file changed since the audit.
    """
    listener.stage("pack")
    contents = manifest.frame["sha256"].tolist()
    home = folder or cache_folder()
    final = home / _store_key(contents, preprocessing)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with hold(final, listener, "Another run is packing the same images; waiting for it."):
            shape = (len(manifest), *preprocessing.shape)
            packed = 0
            images = open_array(final / "images.npy", "r", shape) if (final / "index.json").is_file() else None
            if images is None:
                packed = _pack(manifest, preprocessing, final, listener)
                images = np.load(final / "images.npy", mmap_mode="r")
    except OSError as error:
        raise DataError(_disk_problem(error, home, len(manifest), preprocessing)) from None
    return Store(images, final, packed)


def _store_key(contents: Sequence[str], preprocessing: Preprocessing) -> str:
    # mean and std are applied by the network; they do not change what is stored.
    spec = preprocessing.model_dump(exclude={"mean", "std"})
    digest = hashlib.sha256(json.dumps({"layout": _LAYOUT, "spec": spec}, sort_keys=True).encode())
    digest.update("\n".join(contents).encode())
    return digest.hexdigest()[:32]


def _pack(manifest: Manifest, preprocessing: Preprocessing, final: Path, listener: Listener) -> int:
    n = len(manifest)
    step = max(1, _CHUNK_BYTES // int(np.prod(preprocessing.shape)))
    starts = range(0, n, step)
    partial = final.with_name(f"{final.name}.partial")
    images, checksums = open_partial(partial, "images", (n, *preprocessing.shape), np.uint8, len(starts))
    paths, contents = manifest.frame["path"].tolist(), manifest.frame["sha256"].tolist()
    originals = [manifest.locate(path) for path in paths]

    def pack_chunk(number: int) -> int:
        rows = range(starts[number], min(starts[number] + step, n))
        block = images[rows.start : rows.stop]
        if checksums[number] == 0 or checksum(block) != checksums[number]:
            for place, row in enumerate(rows):
                block[place] = _read_packed(originals[row], paths[row], contents[row], preprocessing)
            checksums[number] = checksum(block)
        return len(rows)

    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for count in pool.map(pack_chunk, range(len(starts))):
                done += count
                listener.advance(done, n)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    images.flush()
    checksums.flush()
    index = {"layout": _LAYOUT, "images": n, "shape": preprocessing.shape, "preprocessing": preprocessing.model_dump()}
    (partial / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return n


def _read_packed(path: str, name: str, content: str, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    try:
        image = read_encoded(path)
        if image.sha256 != content:
            raise DataError(f"{name}: the file changed since the audit. Let nothing write there, and run again.")
        return preprocessing.decode(image)
    except ImageError as error:
        raise DataError(f"{name}: {error.reason}, though the audit could read it. Run again.") from None


def _disk_problem(error: OSError, home: Path, n: int, preprocessing: Preprocessing) -> str:
    needed = math.ceil(n * int(np.prod(preprocessing.shape)) / 2**20)
    what = "the disk is full" if error.errno == errno.ENOSPC else f"cannot be written ({error.strerror or error})"
    return (
        f"{home}: {what}; packing {n:,} images needs {needed:,} MB. "
        "Free some space, or set CLEARMARGIN_CACHE to a folder on another disk."
    )
