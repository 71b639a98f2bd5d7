"""What a Keras model says of a folder of IDC patches, as a CSV that `clearmargin evaluate` and `compare` read.

    python benchmarks/keras_model.py MODEL.h5 IDC --out keras.csv

Runs in an environment of its own with keras, h5py, Pillow and a backend (KERAS_BACKEND=torch or tensorflow);
Clearmargin is not needed there. Images are RGB / 255, smaller ones are filled by mirroring; output 1 of two is
malignant. Where this Keras does not read a file of an old version, the layers are rebuilt from its configuration
and its weights are loaded.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import h5py
import keras
import numpy as np
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="folders PATIENT/0 and PATIENT/1 with PNG patches")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model = load(arguments.model)
    height, width = model.input_shape[1:3]
    files = sorted(arguments.data.glob("*/[01]/*.png"))
    probabilities = []
    for start in range(0, len(files), 1024):
        images = np.stack([read(file, height, width) for file in files[start : start + 1024]])
        outputs = model.predict(images, batch_size=256, verbose=0)
        probabilities.append(outputs[:, 1] if outputs.shape[1] == 2 else outputs[:, 0])
    with arguments.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "patient_id", "label", "probability"])
        for place, probability in zip(files, np.concatenate(probabilities), strict=True):
            writer.writerow([place.absolute(), place.parts[-3], place.parts[-2], float(probability)])


def read(file: Path, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]."""
    image = np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255
    missing = ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0))
    return np.pad(image, missing, mode="symmetric")


def load(path: Path) -> keras.Model:
    """The model, also of a file that is too old for `keras.models.load_model`."""
    try:
        return keras.models.load_model(path, compile=False)
    except (TypeError, ValueError):
        return rebuild(path)


def rebuild(path: Path) -> keras.Model:
    """The layers of a sequential Keras 2 file, one by one, with its weights."""
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])["config"]
        layers = config if isinstance(config, list) else config["layers"]
        shape = layers[0]["config"]["batch_input_shape"][1:]
        model = keras.Sequential([keras.Input(shape), *(make_layer(layer) for layer in layers)])
        for layer in model.layers:
            if layer.weights:
                group = file["model_weights"][layer.name]
                layer.set_weights([group[name][()] for name in group.attrs["weight_names"]])
    return model


def make_layer(described: dict) -> keras.layers.Layer:
    """One layer of the kinds that such files have."""
    kind, config = described["class_name"], described["config"]
    names = {
        "Conv2D": ("filters", "kernel_size", "strides", "padding", "activation", "use_bias", "dilation_rate"),
        "MaxPooling2D": ("pool_size", "strides", "padding"),
        "AveragePooling2D": ("pool_size", "strides", "padding"),
        "BatchNormalization": ("axis", "epsilon", "center", "scale"),
        "Dense": ("units", "activation", "use_bias"),
        "Dropout": ("rate",),
        "ZeroPadding2D": ("padding",),
        "Activation": ("activation",),
        "Flatten": (),
    }
    if kind not in names:
        raise SystemExit(f"layer {kind} is not one that this script rebuilds")
    return getattr(keras.layers, kind)(name=config["name"], **{name: config[name] for name in names[kind]})


if __name__ == "__main__":
    main()
