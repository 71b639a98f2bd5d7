"""Keras files that someone wants to do harm with: one line, no code run, nothing allocated for what they claim."""

from __future__ import annotations

import io
import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.bundle.keras.files import functional, small, write_old, write_small

from clearmargin.bundle.keras import files
from clearmargin.bundle.keras.network import read_network
from clearmargin.bundle.keras.write import write_keras
from clearmargin.errors import DataError

LAMBDA = {"class_name": "__lambda__", "config": {"value": {"code": "4wEAAAA=", "defaults": None, "closure": None}}}


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_network(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700


def with_layer(path: Path, entry: dict[str, Any]) -> Path:
    """The small model with one more layer in the middle."""
    config, weights = small()
    config["config"].insert(1, entry)
    return write_old(path, config, weights)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"class_name": "Lambda", "config": {"name": "evil", "function": ["4wEA", None, None]}}, "'evil' holds code"),
        ({"class_name": "Activation", "config": {"name": "evil", "activation": LAMBDA}}, "'evil' holds code"),
        (
            {"class_name": "Activation", "config": {"name": "evil", "activation": {"class_name": "function"}}},
            "'evil' holds code",
        ),
        ({"class_name": "Conv2D", "module": "os", "config": {"name": "evil"}}, "'evil' is or holds 'Conv2D' of 'os'"),
        ({"class_name": "Conv2D", "module": "keras.os; x", "config": {"name": "evil"}}, "not Keras' own"),
        (
            {"class_name": "Conv2D", "registered_name": "pack>Conv2D", "config": {"name": "evil"}},
            "'evil' is or holds 'pack>Conv2D'",
        ),
        (
            {
                "class_name": "Dropout",
                "config": {"name": "evil", "noise": {"class_name": "Popen", "module": "subprocess", "config": {}}},
            },
            "'evil' is or holds 'Popen' of 'subprocess'",
        ),
        (
            {"class_name": "TFOpLambda", "config": {"name": "evil"}},
            "'evil' .TFOpLambda. is not one that can be imported",
        ),
        ({"class_name": "LSTM", "config": {"name": "evil"}}, "'evil' .LSTM. is not one that can be imported"),
        ({"class_name": "Activation", "config": {"name": "a", "activation": "system"}}, "activation 'system'"),
        ({"class_name": "Conv2D", "config": {"name": "c", "filters": 10**12, "kernel_size": 3}}, "'c': filters: "),
        ({"class_name": "Conv2D", "config": {"name": "c", "filters": 4, "kernel_size": [1, 10**9]}}, "'c': kernel"),
        ({"class_name": "ZeroPadding2D", "config": {"name": "z", "padding": [4096, 4096]}}, "more than 67,108,864"),
        ({"class_name": "UpSampling2D", "config": {"name": "u", "size": [10**6, 10**6]}}, "'u': size"),
        ({"class_name": "Dense", "config": {"name": "d", "units": "many"}}, "'d' .Dense. has no whole number as units"),
        ({"class_name": "Conv2D", "config": {"name": "x\n\x1b[31m", "filters": True}}, r"x\\n\\x1b\[31m"),
        ({"class_name": "Conv2D", "config": None}, "has no config"),
        ({"class_name": ["Conv2D"]}, "no class_name"),
        ({"class_name": "Sequential", "config": {"name": "s", "layers": []}}, "no layers"),
    ],
)
def test_layers(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    refused(with_layer(tmp_path / "a.h5", entry), message)


def test_other_classes_of_models_and_damaged_descriptions(tmp_path: Path) -> None:
    config, weights = small()
    for broken, message in (
        ({**config, "class_name": "MyModel"}, "class 'MyModel', which is not Keras' own"),
        ({**config, "registered_name": "pack>Sequential"}, "not Keras' own"),
        ([], "no object"),
        ({"class_name": "Sequential"}, "no list of layers"),
        ({"class_name": "Sequential", "config": {"layers": config["config"] * 2}}, "two of one name"),
    ):
        refused(write_old(tmp_path / "a.h5", broken, weights), message)


def test_circles_and_missing_layers(tmp_path: Path) -> None:
    start = ("InputLayer", "image", {"batch_input_shape": [None, 8, 8, 3]}, [])
    pool = {"pool_size": [1, 1]}
    circle = functional(start, ("Add", "a", {}, ["image", "b"]), ("MaxPooling2D", "b", pool, ["a"]))
    refused(write_old(tmp_path / "a.h5", circle, {}), "round in a circle")
    refused(write_old(tmp_path / "b.h5", functional(start, output="c"), {}), "is not computed")
    strange = functional(start, ("MaxPooling2D", "b", pool, ["image"]))
    strange["config"]["layers"][1]["inbound_nodes"] = [[["image", "0", 0]]]
    refused(write_old(tmp_path / "c.h5", strange, {}), "not as Keras writes it")
    strange["config"]["layers"][1]["inbound_nodes"] = [[["image", 0, 0, {"training": True}]]]
    refused(write_old(tmp_path / "d.h5", strange, {}), "called with 'training'")


def test_layers_called_with_more_than_they_take(tmp_path: Path) -> None:
    start = ("InputLayer", "image", {"batch_input_shape": [None, 8, 8, 3]}, [])
    for kind, config in (("Activation", {"activation": "relu"}), ("Dropout", {"rate": 0.5}), ("Flatten", {})):
        both = functional(start, (kind, "x", config, ["image", "image"]))
        refused(write_old(tmp_path / "a.h5", both, {}), "x.* takes one input")


def test_models_deep_in_each_other_and_many_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, weights = small()
    inner = config
    for number in range(25):
        inner = {"class_name": "Sequential", "config": {"name": f"m{number}", "layers": [inner]}}
    refused(write_old(tmp_path / "a.h5", inner, weights), "levels deep")
    many = {
        "class_name": "Sequential",
        "config": [{"class_name": "Dropout", "config": {"name": f"d{n}"}} for n in range(5000)],
    }
    refused(write_old(tmp_path / "b.h5", many, weights), "more than 4,096 layers")
    with h5py.File(write_small(tmp_path / "c.h5"), "r+") as file:
        file.attrs["model_config"] = "[" * 100_000 + "]" * 100_000
    refused(tmp_path / "c.h5", "no JSON|levels deep")
    monkeypatch.setattr(files, "_MAX_CONFIG_BYTES", 100)
    refused(write_small(tmp_path / "d.h5"), "too long")


Change = Callable[[h5py.File], None]


KERNEL = "dense/dense/kernel:0"


def instead(make: Callable[[h5py.Group, str], object], name: str = KERNEL) -> Change:
    """What is there is replaced, by default the kernel of the last layer."""

    def change(file: h5py.File) -> None:
        del file[f"model_weights/{name}"]
        make(file["model_weights"], name)

    return change


def array(*arguments: Any, **options: Any) -> Change:
    """The kernel is a data set that is created so."""
    return instead(lambda group, name: group.create_dataset(name, *arguments, **options))


def entry(value: object, name: str = KERNEL) -> Change:
    """The kernel is this link."""
    return instead(lambda group, name: group.__setitem__(name, value), name)


def attribute(place: str, key: str, value: object) -> Change:
    return lambda file: file[place].attrs.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry(h5py.ExternalLink("/etc/passwd", "/x")), "is a link"),
        (entry(h5py.SoftLink("/model_weights/conv")), "is a link"),
        (entry(h5py.ExternalLink("x.h5", "/"), "dense"), "is a link"),
        (
            array((4, 1), "f4", external=[("/etc/passwd", 0, 16)]),
            "kept in another file",
        ),
        (
            instead(lambda group, name: group.create_virtual_dataset(name, h5py.VirtualLayout((4, 1), "f4"))),
            "kept in another file",
        ),
        (array((4, 1), h5py.string_dtype()), "no plain numbers"),
        (array((4, 1), [("a", "f4")]), "no plain numbers"),
        (array((4, 1), "c8"), "no plain numbers"),
        (array(data=h5py.Empty("f4")), "is empty"),
        (array((2**20, 2**20), "f4", chunks=(1, 1024)), "has the shape"),
        (
            array((4, 1), "f4", chunks=(4096, 4096), maxshape=(None, None)),
            "pieces larger than itself",
        ),
        (array(data=np.ones((5, 1), "f4")), "has the shape"),
        (array(data=np.full((4, 1), np.nan, "f4")), "not finite"),
        (array(data=np.full((4, 1), 1e300)), "not finite"),
        (instead(lambda group, name: group.create_group(name)), "is no array"),
        (instead(lambda group, name: None), "is not there"),
        (instead(lambda group, name: None, "dense"), "is not there"),
        (attribute("model_weights/dense", "weight_names", [b"dense/bias:0"] * 2), "one twice"),
        (attribute("model_weights/dense", "weight_names", [b"dense/bias:0"]), "needs 2"),
        (attribute("model_weights", "layer_names", [b"conv"]), "'dense' has 0 arrays"),
        (attribute("model_weights", "layer_names", [1, 2]), "no text"),
        (attribute("model_weights", "layer_names", [b"../.."]), "layer 'conv'|damaged"),
        (lambda file: file.attrs.__setitem__("model_config", 7), "no text"),
        (lambda file: file.attrs.__setitem__("model_config", "{"), "no JSON"),
        (lambda file: file.move("model_weights", "elsewhere"), "no model of Keras"),
    ],
)
def test_arrays_and_attributes(tmp_path: Path, change: Change, message: str) -> None:
    path = write_small(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, message)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_negative_variances_and_steps_up_the_tree(tmp_path: Path) -> None:
    config, weights = small()
    config["config"].insert(1, {"class_name": "BatchNormalization", "config": {"name": "norm"}})
    ones = np.ones(4, np.float32)
    weights["norm"] = [(name, ones) for name in ("gamma:0", "beta:0", "moving_mean:0")] + [("moving_variance:0", -ones)]
    refused(write_old(tmp_path / "a.h5", config, weights), "variance of 'norm' is negative")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    for path in (write_small(tmp_path / "a.h5"), write_zip(tmp_path / "a.keras")):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        refused(path, "cannot be read|damaged")


def test_files_that_are_something_else(tmp_path: Path) -> None:
    import pickle

    for name, content, message in (
        ("pickle.h5", pickle.dumps({"a": 1}), "is a pickle"),
        ("empty.h5", b"", "neither HDF5"),
        ("text.keras", b"keras", "neither HDF5"),
        ("start.h5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 500, "cannot be read as HDF5"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, message)
    refused(tmp_path, "SavedModel")
    refused(tmp_path / "nowhere.h5", "no such file")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["x"] = np.arange(3)
    refused(tmp_path / "plain.h5", "no model of Keras")


def write_zip(path: Path) -> Path:
    network = read_network(write_small(path.with_name("for_zip.h5")))
    write_keras(path, network.graph, network.tensors)
    return path


def rezip(path: Path, change: Callable[[dict[str, bytes]], None], *, deflate: bool = False) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.update({"../../evil.py": b"x"}), "no .keras file has"),
        (lambda members: members.update({"assets/evil.pkl": b"x"}), "no .keras file has"),
        (lambda members: members.pop("config.json"), "it has no config.json"),
        (lambda members: members.update({"model.weights.h5": bytes(64 * 2**20)}), "would unpack to"),
        (lambda members: members.update({"config.json": b" " * 2**25}), "would unpack to"),
        (lambda members: members.update({"model.weights.h5": b"\x80pickle"}), "cannot be read as HDF5"),
        (lambda members: members.update({"metadata.json": b"["}), "no JSON"),
    ],
)
def test_zips(tmp_path: Path, change: Callable[[dict[str, bytes]], None], message: str) -> None:
    refused(rezip(write_zip(tmp_path / "a.keras"), change, deflate=True), message)


def test_arrays_of_a_keras_file(tmp_path: Path) -> None:
    def link(members: dict[str, bytes]) -> None:
        content = io.BytesIO(members["model.weights.h5"])
        with h5py.File(content, "r+") as file:
            del file["layers/dense/vars/0"]
            file["layers/dense/vars/0"] = h5py.SoftLink("/layers/conv2d/vars/0")
        members["model.weights.h5"] = content.getvalue()

    refused(rezip(write_zip(tmp_path / "a.keras"), link), "is a link")

    def lose(members: dict[str, bytes]) -> None:
        members["config.json"] = json.dumps({"class_name": "Functional", "module": "evil"}).encode()

    refused(rezip(write_zip(tmp_path / "b.keras"), lose), "not Keras' own")


def test_a_plugin_filter_is_never_loaded(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file[f"model_weights/{KERNEL}"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((4, 1))
        properties.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((4, 1))
        h5py.h5d.create(file["model_weights"].id, KERNEL.encode(), h5py.h5t.NATIVE_FLOAT, space, properties, None)
    refused(path, "needs a plug-in")
