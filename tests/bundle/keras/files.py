"""Files as Keras 1 and 2 wrote them, put together by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Weights = Mapping[str, Sequence[tuple[str, Array]]]


def write_old(
    path: Path, config: Any, weights: Weights, *, version: str | None = "2.2.4", backend: str | None = "tensorflow"
) -> Path:
    """A whole model as HDF5; without `config` a file of weights alone."""
    with h5py.File(path, "w") as file:
        group = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
            group = file.create_group("model_weights")
        known = {"keras_version": version, "backend": backend}
        for owner in (file, group):
            for key, value in known.items():
                if value is not None:
                    owner.attrs[key] = value.encode()
        group.attrs["layer_names"] = [name.encode() for name in weights] or np.zeros(0, "S1")
        for layer, arrays in weights.items():
            own = group.create_group(layer)
            own.attrs["weight_names"] = [name.encode() for name, _ in arrays] or np.zeros(0)
            for name, values in arrays:
                own[name] = values
    return path


def sequential(*layers: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The description of a sequential model, as early Keras 2 wrote it."""
    return {
        "class_name": "Sequential",
        "config": [{"class_name": kind, "config": dict(config)} for kind, config in layers],
    }


def functional(*layers: tuple[str, str, Mapping[str, Any], Sequence[str]], output: str | None = None) -> dict[str, Any]:
    """A functional model whose first layer is its input, each layer called once: class, name, config, inputs."""
    return {
        "class_name": "Model",
        "config": {
            "name": "model_1",
            "layers": [
                {
                    "class_name": kind,
                    "name": name,
                    "config": {"name": name, **config},
                    "inbound_nodes": [[[source, 0, 0, {}] for source in sources]] if sources else [],
                }
                for kind, name, config, sources in layers
            ],
            "input_layers": [[layers[0][1], 0, 0]],
            "output_layers": [[output or layers[-1][1], 0, 0]],
        },
    }


def small(**changes: Any) -> tuple[dict[str, Any], dict[str, list[tuple[str, Array]]]]:
    """Description and weights of a model that works: convolution, global mean, sigmoid."""
    generator = np.random.default_rng(0)
    config = sequential(
        (
            "Conv2D",
            {
                "name": "conv",
                "batch_input_shape": [None, 8, 8, 3],
                "filters": 4,
                "kernel_size": [3, 3],
                "padding": "valid",
                "activation": "relu",
                **changes,
            },
        ),
        ("GlobalAveragePooling2D", {"name": "mean"}),
        ("Dense", {"name": "dense", "units": 1, "activation": "sigmoid"}),
    )
    weights = {
        "conv": [
            ("conv/kernel:0", generator.normal(0, 0.4, (3, 3, 3, 4)).astype(np.float32)),
            ("conv/bias:0", generator.normal(0, 0.1, 4).astype(np.float32)),
        ],
        "mean": [],
        "dense": [
            ("dense/kernel:0", generator.normal(0, 1, (4, 1)).astype(np.float32)),
            ("dense/bias:0", np.array([0.3], np.float32)),
        ],
    }
    return config, weights


def write_small(path: Path, **changes: Any) -> Path:
    """A file of the model that works."""
    return write_old(path, *small(**changes))
