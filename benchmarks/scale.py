"""How time and memory grow with the number of images: the main job on 10,000, 100,000, … different phantom patches.

    python benchmarks/scale.py --images 10000 100000 277524
    python benchmarks/scale.py --images 1000000 --recipe larger_model

`clearmargin train` runs in a process of its own, one epoch, one network. Of each stage the seconds are told, and what
the process holds in memory of its own at most (`RssAnon`: without the page cache, which holds the mapped store and goes
when others need the memory). No two images are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from similar import write_distinct

_EVERY_S = 0.1


def own_memory(pid: int) -> float:
    """MB that the process holds besides mapped files; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 30_000], help="how many, a run each")
    parser.add_argument("--recipe", default="larger_model")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if not given")
    options = parser.parse_args()
    print(f"{'images':>10}{'stage':>12}{'seconds':>10}{'images/s':>10}{'memory, MB':>12}")
    for images in options.images:
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            folder = Path(temporary)
            write_distinct(folder / "patches", None, images, darker=True)
            measure(folder, images, options.recipe)


def measure(folder: Path, images: int, recipe: str) -> None:
    """Runs the main job and prints a row a stage."""
    command = [sys.executable, "-m", "clearmargin", "train", str(folder / "patches"), "--out", str(folder / "run")]
    command += ["--recipe", recipe, "--epochs", "1", "--set", "train.crossfit=0", "--set", "evaluate.context=none"]
    log, highest, stage = folder / "run" / "log.jsonl", dict[str, float](), "start"
    started = time.perf_counter()
    environment = os.environ | {"CLEARMARGIN_CACHE": str(folder / "cache")}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None:
            if log.exists():
                events = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
                stage = next((event["name"] for event in reversed(events) if event["event"] == "stage"), stage)
            highest[stage] = max(highest.get(stage, 0.0), own_memory(process.pid))
            time.sleep(_EVERY_S)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    total = time.perf_counter() - started
    seconds = json.loads((folder / "run" / "environment.json").read_text())["seconds"]
    for name, value in seconds.items():
        rate = f"{images / value:,.0f}" if value else ""
        print(f"{images:>10,}{name:>12}{value:>10.1f}{rate:>10}{highest.get(name, 0):>12,.0f}", flush=True)
    print(
        f"{images:>10,}{'in all':>12}{total:>10.1f}{images / total:>10,.0f}{max(highest.values()):>12,.0f}", flush=True
    )


if __name__ == "__main__":
    main()
