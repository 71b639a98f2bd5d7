"""Prediction beside Keras and beside ONNX Runtime alone: the same network, the same files, the same cores, one run.

    python benchmarks/predict_peers.py --keras-python tfenv/bin/python
    python benchmarks/predict_peers.py --keras-python PYTHON --data FOLDER --images 20000 --nets cnn_3conv alexnet

PYTHON is the interpreter of an environment of its own, so that TensorFlow (600 MB) stays out of this one:

    python3 -m venv tfenv && tfenv/bin/pip install tensorflow-cpu==2.21.0 pillow

Without it only Clearmargin and ONNX Runtime are measured. Networks have random weights, which cost what trained
ones do.
In each round every program runs once, in processes of their own one after the other, so that a busy machine hits all
alike; the medians are told, and the ratios are medians of the ratios within a round. From files Keras is fed by
`image_dataset_from_directory` (batches of 32, prefetched), from arrays both have them in memory; each rate is of all
images, without the start of the program. The start is timed apart: one image, a new process. `cpu` are microseconds of
processor time an image from files and from arrays, all threads together: what to look at when the machine is busy,
where a program with more threads is given more of it.

`limit` are what no program of this kind can beat with the same parts: Pillow decoding alone in one thread, and ONNX
Runtime alone on an array in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from clearmargin.bundle.export import export_onnx
from clearmargin.bundle.schema import Architecture, Lineage, ModelFile
from clearmargin.bundle.write import Network, write_bundle
from clearmargin.data.walk import walk_files
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model
from clearmargin.models.contract import Classifier, count_parameters
from clearmargin.types import OperatingPoint
from images import add_options, folder_of
from peers import ask, print_table

SIDE = 50
_FIGURES = ("auroc", "auprc", "balanced_accuracy", "accuracy", "sensitivity", "specificity")
_FIGURES += ("ppv", "npv", "f1", "brier", "ece")
_ALEXNET = ((64, 5), (128, 5), (192, 3), (128, 3), (128, 3))
"""Channels and kernel sizes of the convolutions."""


class AlexNet(Classifier):
    """Five convolutions, three of them pooled, and two wide dense layers, at the size of patches."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [], 3
        for number, (wide, kernel) in enumerate(_ALEXNET):
            layers += [nn.Conv2d(channels, wide, kernel, padding=kernel // 2), nn.ReLU()]
            if number in (0, 1, 4):
                layers.append(nn.MaxPool2d(2))
            channels = wide
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * 6 * 6, 1024),
            nn.ReLU(),
            nn.Linear(1024, 512),
            nn.ReLU(),
            nn.Linear(512, 1),
        )

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.head(features)[:, 0]


_KERAS_NET = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
from keras import layers as L
def build(name, side):
    net = [keras.Input((side, side, 3)), L.Rescaling(1 / 255)]
    if name == "alexnet":
        for n, (wide, kernel) in enumerate(((64, 5), (128, 5), (192, 3), (128, 3), (128, 3))):
            net.append(L.Conv2D(wide, kernel, padding="same", activation="relu"))
            if n in (0, 1, 4):
                net.append(L.MaxPooling2D())
        net += [L.Flatten(), L.Dense(1024, activation="relu"), L.Dense(512, activation="relu")]
    else:
        for wide in (32, 64, 128):
            net += [L.Conv2D(wide, 3, activation="relu"), L.MaxPooling2D()]
        net += [L.Flatten(), L.Dense(128, activation="relu")]
    return keras.Sequential([*net, L.Dense(1, activation="sigmoid")])
"""
_KERAS_SAVE = "net = build(sys.argv[1], int(sys.argv[3])); net.save(sys.argv[2]); print(net.count_params())"
_KERAS_RATE = """
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, keras, tensorflow as tf
net = keras.models.load_model(sys.argv[1])
side = net.input_shape[1]
files = keras.utils.image_dataset_from_directory(
    sys.argv[2], labels=None, image_size=(side, side), batch_size=32, shuffle=False, verbose=False
).prefetch(tf.data.AUTOTUNE)
n = int(sys.argv[3])
net.predict(np.zeros((32, side, side, 3), np.uint8), verbose=0)
def timed(work):
    started, used = time.perf_counter(), time.process_time()
    work()
    return n / (time.perf_counter() - started), (time.process_time() - used) / n * 1e6
files, cpu_files = timed(lambda: net.predict(files, verbose=0))
images = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
arrays, cpu_arrays = timed(lambda: net.predict(images, batch_size=32, verbose=0))
print(json.dumps({"files": files, "arrays": arrays, "cpu, files": cpu_files, "cpu, arrays": cpu_arrays}))
"""
_KERAS_ONE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, keras
net = keras.models.load_model(sys.argv[1])
image = keras.utils.img_to_array(keras.utils.load_img(sys.argv[2], target_size=net.input_shape[1:3]))
print(net.predict(image[None], verbose=0))
"""
_OURS_RATE = """
import io, json, sys, time
import numpy as np
from clearmargin.cli.answers import write_predictions
from clearmargin.cli.inputs import Inputs
from clearmargin.predict.predictor import load_bundle
predictor = load_bundle(sys.argv[1])
n = int(sys.argv[3])
shape = predictor.bundle.model.preprocessing.shape
predictor.logits(np.zeros((32, *shape), np.uint8))
out = io.StringIO()
def timed(work):
    started, used = time.perf_counter(), time.process_time()
    work()
    return n / (time.perf_counter() - started), (time.process_time() - used) / n * 1e6
def whole():
    write_predictions(out, predictor.predict_records(Inputs([sys.argv[2]])), "json", every=predictor.batch)
files, cpu_files = timed(whole)
assert out.getvalue().count('"benign"') + out.getvalue().count('"malignant"') == n
images = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
arrays, cpu_arrays = timed(lambda: predictor.logits(images))
print(json.dumps({"files": files, "arrays": arrays, "cpu, files": cpu_files, "cpu, arrays": cpu_arrays}))
"""
_ORT_RATE = """
import json, sys, time
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
input = session.get_inputs()[0]
n, shape = int(sys.argv[2]), input.shape[1:]
images = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
told = []
for size in (32, 256):
    session.run(None, {input.name: images[:size]})
    started, used = time.perf_counter(), time.process_time()
    for start in range(0, n, size):
        session.run(None, {input.name: images[start : start + size]})
    told.append((n / (time.perf_counter() - started), (time.process_time() - used) / n * 1e6))
best = max(told)
print(json.dumps({"arrays": best[0], "cpu, arrays": best[1]}))
"""
_PILLOW_RATE = """
import json, sys, time
from pathlib import Path
import numpy as np
from PIL import Image
files = sorted(Path(sys.argv[1]).rglob("*.*"))
started, used = time.perf_counter(), time.process_time()
for file in files:
    np.asarray(Image.open(file).convert("RGB"))
seconds, used = time.perf_counter() - started, time.process_time() - used
print(json.dumps({"files": len(files) / seconds, "cpu, files": used / len(files) * 1e6}))
"""
_ORT_ONE = """
import sys, numpy, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
height, width = session.get_inputs()[0].shape[1:3]
image = numpy.asarray(Image.open(sys.argv[2]).convert("RGB").resize((width, height)))[None]
print(session.run(None, {session.get_inputs()[0].name: image})[0])
"""
_COLUMNS = {"files": ("files/s", 0), "arrays": ("arrays/s", 0), "cpu, files": ("cpu, files", 0)}
_COLUMNS |= {"cpu, arrays": ("cpu, arrays", 0), "seconds": ("start, s", 2), "MB": ("MB", 0)}
"""Heading and decimals of each figure."""
_TIMED = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"seconds": time.perf_counter() - started, "MB": usage.ru_maxrss / 1024}))
"""


def write_random(folder: Path, name: str) -> Path:
    """A bundle of a network with random weights."""
    spec = Preprocessing(width=SIDE, height=SIDE)
    model = AlexNet().eval() if name == "alexnet" else build_model(name, spec.shape, seed=0).eval()
    undefined = {"value": None, "ci": None, "reason": "random weights"}
    metrics: dict[str, object] = {"n_images": 1, "n_patients": 1, "loss": 0.0, "confusion": [[0, 0], [0, 0]]}
    metrics |= dict.fromkeys(_FIGURES, undefined)
    point = OperatingPoint("balanced", "for a benchmark", 0.5)
    contents = ModelFile(
        architecture=Architecture(name=name, parameters=count_parameters(model)),
        preprocessing=spec,
        temperature=1.0,
        operating_points={"balanced": point},
        operating_point="balanced",
        lineage=Lineage(
            clearmargin="0", created="", recipe=name, seed=0, split="patient", data_sha256="", split_sha256="",
            precision="32-true", metrics=metrics, libraries={},
        ),
    )  # fmt: skip
    examples = np.random.default_rng(0).integers(0, 256, (2, *spec.shape), dtype=np.uint8)
    write_bundle(folder, contents, Network(model.state_dict(), export_onnx(model, spec, examples)))
    return folder


def compare(name: str, root: Path, n: int, folder: Path, keras_python: str | None, *, rounds: int) -> None:
    """Measures one network and prints its part of the table."""
    bundle = write_random(folder / name, name)
    onnx, image = bundle / "model.onnx", next(root / path for path in walk_files(root))
    programs: dict[str, list[list[str]]] = {
        "clearmargin": [
            [sys.executable, _OURS_RATE, str(bundle), str(root), str(n)],
            [sys.executable, "-m", "clearmargin", "predict", str(bundle), str(image), "--format", "json"],
        ],
        "limit": [
            [sys.executable, _ORT_RATE, str(onnx), str(n)],
            [sys.executable, "-c", _ORT_ONE, str(onnx), str(image)],
            [sys.executable, _PILLOW_RATE, str(root)],
        ],
    }
    if keras_python is not None:
        keras_file = folder / f"{name}.keras"
        parameters = ask(keras_python, _KERAS_NET + _KERAS_SAVE, name, keras_file, SIDE)
        assert parameters == json.loads((bundle / "model.json").read_text())["architecture"]["parameters"], parameters
        programs["keras"] = [
            [keras_python, _KERAS_RATE, str(keras_file), str(root), str(n)],
            [keras_python, "-c", _KERAS_ONE, str(keras_file), str(image)],
        ]
    told: dict[str, list[dict[str, float]]] = {program: [] for program in programs}
    for _ in range(rounds):
        for program, (rate, one, *more) in programs.items():
            result = ask(rate[0], rate[1], *rate[2:]) | ask(sys.executable, _TIMED, *one)
            for extra in more:
                result |= ask(extra[0], extra[1], *extra[2:])
            told[program].append(result)
    print(f"\n{name}, {n:,} files, {rounds} rounds; load of the machine {os.getloadavg()[0]:.1f}")
    others = [program for program in programs if program != "clearmargin"]
    print_table(told, _COLUMNS, [(f"ours / {other}", "clearmargin", other) for other in others])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, images=10_000)
    parser.add_argument("--keras-python", metavar="PYTHON", help="an interpreter with TensorFlow")
    parser.add_argument("--nets", nargs="+", default=["cnn_3conv", "alexnet"], choices=["cnn_3conv", "alexnet"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with folder_of(options.data, options.images) as root, tempfile.TemporaryDirectory() as folder:
        for name in options.nets:
            compare(name, root, options.images, Path(folder), options.keras_python, rounds=options.rounds)


if __name__ == "__main__":
    main()
