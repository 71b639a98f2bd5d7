"""Training beside Keras and a PyTorch DataLoader: the same network, the same files, the same cores, one run.

    python benchmarks/train_peers.py --keras-python tfenv/bin/python
    python benchmarks/train_peers.py --keras-python PYTHON --data FOLDER --images 17337 --nets cancernet

PYTHON is the interpreter of an environment of its own, so that TensorFlow (600 MB) stays out of this one:

    python3 -m venv tfenv && tfenv/bin/pip install tensorflow-cpu==2.21.0 pillow scipy

Without it only the programs on torch are measured. In each round every program runs once, each in a process of its own
one after the other, so that a busy machine hits all alike; the medians are told, and the ratios are medians of the
ratios within a round. Batches of 32, the optimizer and the random changes of the recipe (flips, rotation, shift, zoom
where it has them). The programs are those that a user would write:

- `keras, dataset`: `image_dataset_from_directory`, the random changes as layers mapped over it, prefetched
- `keras, generator`: `ImageDataGenerator.flow_from_directory`
- `keras, arrays`: `fit` on an array in memory, nothing changed at random
- `torch, loader`: a folder of images read by Pillow in a `DataLoader` of two workers, 32-bit, random changes by us
- `clearmargin`: packs the files and trains from the store; precision `auto`
- `clearmargin, arrays`: an array in memory, nothing changed at random
- `limit`: the same steps of ours on one batch that lies ready

`first, s` are the seconds from the first file to the end of the first epoch (ours is audited and packed by then),
without the start of the program; images/s is of the epoch after. `cpu` are microseconds of processor time an image in
that epoch, all threads and processes together: what to look at when the machine is busy.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from images import add_options, folder_of
from peers import ask, print_table

_KERAS = """
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import warnings; warnings.filterwarnings("ignore")
import numpy as np, keras, tensorflow as tf
from keras import layers as L
kind, name, root, n, side = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
def cnn_50():
    body = []
    for wide in (32, 64, 128):
        body += [L.Conv2D(wide, 3, activation="relu"), L.Dropout(0.25), L.MaxPooling2D()]
    net = [L.Rescaling(1 / 255), *body, L.Flatten(), L.Dense(128, activation="relu"), L.Dense(1, activation="sigmoid")]
    return net, keras.optimizers.Adam(1e-3), "binary_crossentropy"
def cancernet():
    body = []
    for group in ((32,), (64, 64), (128, 128, 128)):
        for wide in group:
            body += [L.SeparableConv2D(wide, 3, padding="same"), L.Activation("relu"), L.BatchNormalization()]
        body += [L.MaxPooling2D(), L.Dropout(0.25)]
    head = [L.Flatten(), L.Dense(256), L.Activation("relu"), L.BatchNormalization(), L.Dropout(0.5)]
    net = [L.Rescaling(1 / 255), *body, *head, L.Dense(2, activation="softmax")]
    return net, keras.optimizers.Adagrad(1e-2), "sparse_categorical_crossentropy"
layers, optimizer, loss = {"cnn_50": cnn_50, "cancernet": cancernet}[name]()
model = keras.Sequential([keras.Input((side, side, 3)), *layers])
model.compile(optimizer, loss, metrics=["accuracy"])
warps = name == "cancernet"
def used():
    t = os.times()
    return t.user + t.system
class Clock(keras.callbacks.Callback):
    def on_train_begin(self, logs=None): self.ends = []
    def on_epoch_end(self, epoch, logs=None): self.ends.append((time.perf_counter(), used()))
clock, started = Clock(), time.perf_counter()
if kind == "arrays":
    images = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 2, n)
    started = time.perf_counter()
    model.fit(images, labels, batch_size=32, epochs=2, verbose=0, callbacks=[clock])
elif kind == "dataset":
    data = keras.utils.image_dataset_from_directory(root, image_size=(side, side), batch_size=32, verbose=False)
    if warps:
        change = keras.Sequential([
            L.RandomFlip(), L.RandomRotation(20 / 360), L.RandomZoom(0.05), L.RandomTranslation(0.1, 0.1)
        ])
        data = data.map(lambda x, y: (change(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    model.fit(data.prefetch(tf.data.AUTOTUNE), epochs=2, verbose=0, callbacks=[clock])
else:
    changes = dict(
        rotation_range=20, zoom_range=0.05, width_shift_range=0.1, height_shift_range=0.1, shear_range=3,
        horizontal_flip=True, vertical_flip=True,
    ) if warps else {}
    generator = tf.keras.preprocessing.image.ImageDataGenerator(**changes)
    flow = generator.flow_from_directory(root, target_size=(side, side), batch_size=32, class_mode="binary")
    model.fit(flow, epochs=2, verbose=0, callbacks=[clock])
(first, cpu_first), (second, cpu_second) = clock.ends
print(json.dumps({
    "first": first - started, "images": n / (second - first), "cpu": (cpu_second - cpu_first) / n * 1e6,
    "parameters": sum(int(np.prod(w.shape)) for w in model.trainable_weights),
}))
"""
_TORCH = """
import json, os, resource, sys, time
from pathlib import Path
import numpy as np, torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from clearmargin.config import load_recipe
from clearmargin.models import build_model
from clearmargin.training.augment import augment
from clearmargin.training.optimizer import build_optimizer
name, root, n, side = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
class Folder(Dataset):
    def __init__(self, root):
        classes = sorted(path.name for path in Path(root).iterdir())
        self.files = [(file, classes.index(file.parent.name)) for file in sorted(Path(root).rglob("*.*"))]
    def __len__(self):
        return len(self.files)
    def __getitem__(self, row):
        file, label = self.files[row]
        image = Image.open(file).convert("RGB")
        if image.size != (side, side):
            image = image.resize((side, side), Image.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, float(label)
def used():
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
config = load_recipe(name)
generator = torch.Generator().manual_seed(0)
model = build_model(name, (side, side, 3))
optimizer = build_optimizer(model, config.train)
lossof = torch.nn.BCEWithLogitsLoss()
ends, started = [], time.perf_counter()
loader = DataLoader(Folder(root), batch_size=32, shuffle=True, num_workers=2)
for epoch in range(2):
    before = used()
    for x, y in loader:
        optimizer.zero_grad()
        loss = lossof(model(augment(x, config.augment, generator)), y.float())
        loss.backward()
        optimizer.step()
        loss.item()
    ends.append((time.perf_counter(), used() - before))
print(json.dumps({
    "first": ends[0][0] - started, "images": n / (ends[1][0] - ends[0][0]), "cpu": ends[1][1] / n * 1e6,
    "parameters": sum(p.numel() for p in model.parameters()),
}))
"""
_OURS = """
import json, os, sys, tempfile, time
from pathlib import Path
import numpy as np
from clearmargin.config import load_recipe
from clearmargin.data.audit import audit_manifest
from clearmargin.data.sources import read_source
from clearmargin.data.store import pack_store
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model
from clearmargin.settings import AugmentSettings
from clearmargin.training.batches import TrainingImages
from clearmargin.training.loop import fit_model
from clearmargin.types import Listener
kind, name, root, n, side = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
config = load_recipe(name, {"train.epochs": 2, "train.average_decay": 0.0})
spec = Preprocessing(width=side, height=side)
model = build_model(name, spec.shape)
def used():
    t = os.times()
    return t.user + t.system
class Clock(Listener):
    ends = []
    def epoch(self, row):
        self.ends.append((time.perf_counter(), used()))
with tempfile.TemporaryDirectory() as folder:
    started = time.perf_counter()
    if kind == "files":
        manifest = audit_manifest(read_source(Path(root))).manifest
        store = pack_store(manifest, spec, folder=Path(folder))
        images, labels = store.images, manifest.labels()
    else:
        many = n if kind == "arrays" else 32
        images = np.random.default_rng(0).integers(0, 256, (many, side, side, 3), dtype=np.uint8)
        labels = np.random.default_rng(1).integers(0, 2, many).astype(np.int8)
        config = config.model_copy(update={"augment": AugmentSettings()})
        started = time.perf_counter()
    rows = np.arange(n) % len(images)
    data = TrainingImages(images, labels, rows, rows[:32])
    fit_model(model, data, config, spec, run=Path(folder), fingerprint="benchmark", listener=Clock())
(first, cpu_first), (second, cpu_second) = Clock.ends
print(json.dumps({
    "first": first - started, "images": n / (second - first), "cpu": (cpu_second - cpu_first) / n * 1e6,
    "parameters": sum(p.numel() for p in model.parameters()),
}))
"""
_SIDES = {"cnn_50": 50, "cancernet": 48}
_PEAK = """
import json, os, resource, subprocess, sys
if sys.argv[1] != sys.executable:
    os.environ.pop("PYTHONPATH", None)
done = subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE, text=True)
told = json.loads(done.stdout.splitlines()[-1])
print(json.dumps(told | {"MB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}))
"""
_COLUMNS = {"images": ("images/s", 0), "cpu": ("cpu", 0), "first": ("first, s", 1), "MB": ("MB", 0)}
"""Heading and decimals of each figure."""
_PAIRS = (
    ("clearmargin", "keras, dataset"),
    ("clearmargin", "keras, generator"),
    ("clearmargin", "torch, loader"),
    ("clearmargin, arrays", "keras, arrays"),
    ("clearmargin", "limit"),
)


def link_by_class(root: Path, classes: Path) -> None:
    """A folder for each class, as Keras and torch want it, of hard links to the same files."""
    for file in root.rglob("*.*"):
        if file.is_file():
            (classes / file.parent.name).mkdir(parents=True, exist_ok=True)
            os.link(file, classes / file.parent.name / file.name)


def compare(name: str, root: Path, classes: Path, n: int, keras_python: str | None, *, rounds: int) -> None:
    """Measures one network and prints its part of the table."""
    programs = {
        "clearmargin": (sys.executable, _OURS, "files", root),
        "torch, loader": (sys.executable, _TORCH, "loader", classes),
        "clearmargin, arrays": (sys.executable, _OURS, "arrays", root),
        "limit": (sys.executable, _OURS, "batch", root),
    }
    if keras_python is not None:
        for kind in ("dataset", "generator", "arrays"):
            programs[f"keras, {kind}"] = (keras_python, _KERAS, kind, classes)
    told: dict[str, list[dict[str, float]]] = {program: [] for program in programs}
    for _ in range(rounds):
        for program, (python, code, kind, folder) in programs.items():
            told[program].append(ask(sys.executable, _PEAK, python, "-c", code, kind, name, folder, n, _SIDES[name]))
    print(f"\n{name}, {n:,} images, {rounds} rounds; load of the machine {os.getloadavg()[0]:.1f}")
    parameters = {program: int(results[0]["parameters"]) for program, results in told.items()}
    print(f"weights to train: {parameters}")
    pairs = [(f"{ours} / {theirs}", ours, theirs) for ours, theirs in _PAIRS if theirs in told]
    print_table(told, _COLUMNS, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, images=10_000)
    parser.add_argument("--keras-python", metavar="PYTHON", help="an interpreter with TensorFlow")
    parser.add_argument("--nets", nargs="+", default=list(_SIDES), choices=list(_SIDES))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with folder_of(options.data, options.images) as root, tempfile.TemporaryDirectory(dir=root.parent) as classes:
        link_by_class(root, Path(classes))
        for name in options.nets:
            compare(name, root, Path(classes), options.images, options.keras_python, rounds=options.rounds)


if __name__ == "__main__":
    main()
