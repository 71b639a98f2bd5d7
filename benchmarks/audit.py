"""How long `clearmargin audit` takes from files, and the most memory it needs, in a process of its own.

No two images are the same: a copy would be told from its hash, and the search for near duplicates have less to do.

python benchmarks/audit.py --images 277524
python benchmarks/audit.py --data FOLDER --images 277524        (the patches of FOLDER first, then windows of them)
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from similar import write_distinct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of patches; phantom slides if not given")
    parser.add_argument("--images", type=int, default=20_000, help="how many images to write and audit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "patches"
        write_distinct(root, options.data, options.images)
        command = [sys.executable, "-m", "clearmargin", "audit", str(root), "--json"]
        started = time.perf_counter()
        with (
            tempfile.TemporaryFile("w+") as output,
            subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True) as process,
        ):
            assert process.stderr is not None
            stages = [(line, time.perf_counter()) for line in process.stderr if not line.startswith(" ")]
            process.wait()
            ended = time.perf_counter()
            output.seek(0)
            answer = json.load(output)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{answer['counts']['images']:,} images of {answer['counts']['patients']} patients")
    times = [*(at for _, at in stages), ended]
    print(f"{'start and list the folder':<28}{times[0] - started:>8.1f} s")
    for (name, begun), end in zip(stages, times[1:], strict=True):
        print(f"{re.sub('[^a-zA-Z ]', '', name).strip():<28}{end - begun:>8.1f} s")
    print(f"{'in all':<28}{ended - started:>8.1f} s, {answer['counts']['images'] / (ended - started):,.0f} images/s")
    print(f"memory at most {peak:,.0f} MB")
    print("findings:", dict(Counter({entry["kind"]: entry["count"] for entry in answer["findings"]})))


if __name__ == "__main__":
    main()
