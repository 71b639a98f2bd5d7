"""How fast files are audited and packed, beside the limit: the same files read, hashed and decoded by one thread.

python benchmarks/pack.py --images 277524
python benchmarks/pack.py --data FOLDER --images 17337
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from pathlib import Path

from clearmargin.data.audit import audit_manifest
from clearmargin.data.sources import read_source
from clearmargin.data.store import pack_store
from clearmargin.images.preprocess import choose_preprocessing
from clearmargin.images.read import decode_image, read_bytes
from clearmargin.settings import ImageSettings
from images import add_options, folder_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, images=20_000)
    options = parser.parse_args()
    with folder_of(options.data, options.images) as root, tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        manifest = read_source(root)
        listed = time.perf_counter() - started
        sample = manifest.frame["path"].tolist()[:5_000]
        started = time.perf_counter()
        for path in sample:
            data = read_bytes(path)
            hashlib.sha256(data).digest()
            decode_image(data, path)
        limit = len(sample) / (time.perf_counter() - started)
        started = time.perf_counter()
        audit = audit_manifest(manifest)
        audited = time.perf_counter() - started
        preprocessing = choose_preprocessing(
            ImageSettings(), audit.manifest.frame[["width", "height"]].to_numpy(dtype=int)
        )
        started = time.perf_counter()
        pack_store(audit.manifest, preprocessing, folder=Path(cache))
        packed = time.perf_counter() - started
        started = time.perf_counter()
        again = pack_store(audit.manifest, preprocessing, folder=Path(cache))
        found = time.perf_counter() - started
    n = len(manifest)
    print(f"{n:,} images of {preprocessing.width}×{preprocessing.height}")
    print(f"{'stage':<34} {'seconds':>8} {'images/s':>10} {'of the limit':>13}")
    print(f"{'read, hash, decode: one thread':<34} {n / limit:>8.1f} {limit:>10,.0f} {1:>13.2f}")
    for name, seconds in (("list the folder", listed), ("audit", audited), ("pack", packed)):
        print(f"{name:<34} {seconds:>8.1f} {n / seconds:>10,.0f} {n / seconds / limit:>13.2f}")
    print(f"{'find the packed store again':<34} {found:>8.3f}   (packed now: {again.packed})")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB, mapped pages included")


if __name__ == "__main__":
    main()
