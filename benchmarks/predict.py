"""How fast a bundle predicts: one image from a cold start, and many from files, each beside its limit.

    python benchmarks/predict.py RUN
    python benchmarks/predict.py RUN --data FOLDER --images 17337

The limits: a bare script with ONNX Runtime and Pillow for the cold start; decoding alone and the network alone
for files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from clearmargin.data.walk import walk_files
from clearmargin.images.read import read_image
from clearmargin.predict.predictor import load_bundle
from clearmargin.predict.session import Session
from clearmargin.types import Record
from images import add_options, folder_of

_BARE = """
import sys, numpy, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
height, width = session.get_inputs()[0].shape[1:3]
image = numpy.asarray(Image.open(sys.argv[2]).convert("RGB").resize((width, height)))[None]
print(session.run(None, {session.get_inputs()[0].name: image})[0])
"""
_TIMED = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, capture_output=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([time.perf_counter() - started, usage.ru_maxrss / 1024]))
"""


def cold(command: list[str], rounds: int) -> tuple[float, float]:
    """Fastest seconds and largest MB of a command started anew each time."""
    results = []
    for _ in range(rounds):
        answer = subprocess.run([sys.executable, "-c", _TIMED, *command], check=True, capture_output=True, text=True)
        results.append(json.loads(answer.stdout))
    return min(result[0] for result in results), max(result[1] for result in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder or a bundle")
    add_options(parser, images=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    predictor = load_bundle(options.run)
    folder = predictor.bundle.folder
    with folder_of(options.data, options.images) as root:
        files = [str(root / name) for name in walk_files(root)]
        command = [sys.executable, "-m", "clearmargin", "predict", str(folder), files[0], "--format", "json"]
        bare = [sys.executable, "-c", _BARE, str(folder / "model.onnx"), files[0]]
        for name, (seconds, memory) in (
            ("clearmargin predict", cold(command, options.rounds)),
            ("bare", cold(bare, options.rounds)),
        ):
            print(f"cold start of one image: {name:<20} {seconds:6.2f} s {memory:6.0f} MB")
        started = time.perf_counter()
        images = np.stack([predictor.bundle.model.preprocessing.apply(read_image(file)) for file in files])
        decode = len(files) / (time.perf_counter() - started)
        session = Session(predictor.bundle.read("model.onnx"))
        started = time.perf_counter()
        session.logits(images)
        network = len(files) / (time.perf_counter() - started)
        started = time.perf_counter()
        for _ in predictor.predict_records(Record(file) for file in files):
            pass
        whole = len(files) / (time.perf_counter() - started)
    serial = 1 / (1 / decode + 1 / network)
    print(f"{len(files):,} files, images/s: decode alone (one thread) {decode:,.0f}; network alone {network:,.0f}; ")
    print(f"one after the other {serial:,.0f}; predict from files {whole:,.0f} ({whole / serial:.2f} of that)")


if __name__ == "__main__":
    main()
