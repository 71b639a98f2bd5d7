"""Bundles made to do harm, with hashes that are right: nothing in them is run, and each is refused in one line.

Hashes protect from damage; whoever changes a bundle on purpose writes them anew, as `sign_all` does here. A canary file
tells whether anything was executed. What a single file or an ONNX network may hold is tested one by one in
`test_single_file.py` and `test_onnx_check.py`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import save
from tests.bundle.small_bundle import pictures, write_working
from tests.models.torchvision_stand_in import import_timm
from tests.slides import sign_all

from clearmargin.bundle.read import REQUIRED, SUMS, read_bundle
from clearmargin.bundle.single_file import pack_files
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.cli import main
from clearmargin.errors import BundleError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.predict.predictor import load_bundle

SPEC = Preprocessing(width=16, height=16, mean=0.5, std=0.25)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "good"
    write_working(folder, name="cbis_ddsm", spec=SPEC)
    return folder


@pytest.fixture
def bundle(good: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for file in good.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(pictures(SPEC, 3)[2]).save(tmp_path / "patch.png")
    return tmp_path / "patch.png"


class Canary:
    """Pickles that leave a file behind when somebody opens them."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "executed"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)

    def pickles(self) -> dict[str, bytes]:
        stream = io.BytesIO()
        torch.save(self, stream)
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(self))
        array = io.BytesIO()
        np.save(array, np.array([self], dtype=object), allow_pickle=True)
        return {
            "pickle": pickle.dumps(self), "old pickle": pickle.dumps(self, protocol=0), "torch": stream.getvalue(),
            "zip": zipped.getvalue(), "npy": array.getvalue(),
        }  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    made = Canary(tmp_path)
    pickle.loads(made.pickles()["pickle"])
    assert made.mark.exists(), "the canary must be able to sing"
    made.mark.unlink()
    return made


def refused(folder: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says of the bundle; every way to it ends with exit code 4 and one line."""
    assert main(["predict", str(folder), str(image)]) == 4
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.removesuffix("\n").isprintable()
    assert len(shown.err) < 700
    with pytest.raises(BundleError):
        load_bundle(folder)
    return shown.err


def torch_refuses(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_torch_model(read_bundle(folder))
    assert str(caught.value).isprintable()
    return str(caught.value)


def single_file_of(folder: Path) -> Path:
    path = folder.with_name("one.clearmargin")
    path.write_bytes(pack_files({file.name: file.read_bytes() for file in folder.iterdir()}))
    return path


@pytest.mark.parametrize("kind", ["pickle", "old pickle", "torch", "zip", "npy"])
@pytest.mark.parametrize("name", ["model.json", "model.onnx", "weights.safetensors", SUMS])
def test_a_pickle_under_any_name_of_a_bundle_is_never_opened(  # noqa: PLR0917
    bundle: Path, canary: Canary, image: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:  # fmt: skip
    (bundle / name).write_bytes(canary.pickles()[kind])
    if name != SUMS:
        sign_all(bundle)
    for place in (bundle, single_file_of(bundle)):
        if name == "weights.safetensors":  # prediction needs none; what does says no
            assert main(["predict", str(place), str(image), "--format", "json"]) == 0
            capsys.readouterr()
            assert "weights.safetensors" in torch_refuses(place)
            assert main(["export", str(place), "--to", "onnx", "--out", str(image.with_suffix(".onnx"))]) == 4
            assert capsys.readouterr().err.count("\n") == 1
        else:
            refused(place, image, capsys)
    assert not canary.mark.exists()


@pytest.mark.parametrize("kind", ["pickle", "old pickle", "torch", "zip", "npy"])
@pytest.mark.parametrize(
    "name", ["one.clearmargin", "model.onnx", "weights.safetensors", "model.json", "model.pt", "model.pkl", "bundle"]
)
def test_a_pickle_given_as_a_bundle_is_never_opened(  # noqa: PLR0917
    tmp_path: Path, canary: Canary, image: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:  # fmt: skip
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / name).write_bytes(canary.pickles()[kind])
    refused(tmp_path / "given" / name, image, capsys)
    refused(tmp_path / "given", image, capsys)
    assert not canary.mark.exists()


def test_a_pickle_beside_the_files_of_a_bundle_is_not_looked_at(bundle: Path, canary: Canary, image: Path) -> None:
    for name in ("model.pt", "weights.pkl", "config.pickle", "__init__.py", "model.py"):
        (bundle / name).write_bytes(canary.pickles()["pickle"])
    assert main(["predict", str(bundle), str(image)]) == 0
    load_torch_model(read_bundle(bundle))
    assert not canary.mark.exists()


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: tuple[Any, ...] = (1,), offsets: tuple[Any, ...] = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


WEIGHTS: dict[str, bytes] = {
    "nothing": b"",
    "no header": b"\x00\x01",
    "header of 2**60": safetensors(b"{}", length=2**60),
    "header of 2**63": safetensors(b"{}", length=2**63),
    "header beyond the end": safetensors(b"{}", length=3),
    "no json": safetensors(b"\x80\x04."),
    "a list": safetensors([1, 2]),
    "nested deep": safetensors(b'{"a":' * 100_000),
    "a long number": safetensors(b'{"a": ' + b"9" * 1_000_000 + b"}"),
    "negative": safetensors({"a": entry(offsets=(-4, 0))}, bytes(4)),
    "backwards": safetensors({"a": entry(offsets=(4, 0))}, bytes(4)),
    "behind the end": safetensors({"a": entry(offsets=(0, 2**40), shape=(2**38,))}, bytes(4)),
    "overlapping": safetensors({"a": entry(), "b": entry()}, bytes(4)),
    "with a gap": safetensors({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)),
    "data behind": safetensors({"a": entry()}, bytes(8)),
    "a shape that is a lie": safetensors({"a": entry(shape=(2**62, 4))}, bytes(4)),
    "a negative side": safetensors({"a": entry(shape=(-1, -1))}, bytes(4)),
    "a side of text": safetensors({"a": entry(shape=("1",))}, bytes(4)),
    "a true side": safetensors({"a": entry(shape=(True,))}, bytes(4)),
    "more dimensions than any": safetensors({"a": entry(shape=(1,) * 10_000)}, bytes(4)),
    "half": safetensors({"a": entry("F16", (2,))}, bytes(4)),
    "bytes": safetensors({"a": entry("U8", (4,))}, bytes(4)),
    "unknown kind": safetensors({"a": entry("OBJECT\n\x1b[2J")}, bytes(4)),
    "more keys": safetensors({"a": entry() | {"pickle": "yes"}}, bytes(4)),
    "other names": safetensors({"a\nb": entry()}, bytes(4)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_not_written_as_ours_are_refused(bundle: Path, name: str) -> None:
    (bundle / "weights.safetensors").write_bytes(WEIGHTS[name])
    sign_all(bundle)
    tracemalloc.start()
    said = torch_refuses(bundle)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "weights.safetensors: " in said
    assert peak < 50e6


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    import safetensors.torch

    tensors = safetensors.torch.load((folder / "weights.safetensors").read_bytes())
    change(tensors)
    (folder / "weights.safetensors").write_bytes(save(tensors))
    sign_all(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(bundle: Path, value: float) -> None:
    change_weights(bundle, lambda tensors: tensors["head.5.bias"].fill_(value))
    assert "'head.5.bias' holds values that are no finite numbers" in torch_refuses(bundle)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tensors: tensors.pop("head.5.bias"), "'head.5.bias' is missing"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "'more' is not one of its tensors"),
        (lambda tensors: tensors.update({"head.5.bias": torch.zeros(2)}), "is F32 2 instead of F32 1"),
        (lambda tensors: tensors.update({"head.5.bias": torch.zeros(1, dtype=torch.int64)}), "I64 1 instead of F32 1"),
        (lambda tensors: tensors.update({"head.5.bias": torch.zeros(1, dtype=torch.float64)}), "is of the kind F64"),
        (lambda tensors: tensors.update({"x" * 9_999 + "\n": torch.zeros(1)}), "is not one of its tensors"),
    ],
)
def test_weights_of_another_shape_or_kind_are_refused(
    bundle: Path, change: Callable[[dict[str, torch.Tensor]], object], why: str
) -> None:
    change_weights(bundle, change)
    said = torch_refuses(bundle)
    assert why in said
    assert len(said) < 500


def change_model(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "model.json").read_text())
    for key, value in changes.items():
        *way, last = key.split("__")
        inner = values
        for name in way:
            inner = inner[name]
        inner[last] = value
    (folder / "model.json").write_text(json.dumps(values))
    sign_all(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000, b'{"a":' * 100_000, b'{"schema": ' + b"9" * 5_000_000 + b"}", b'{"schema": 1e999}',
        b'{"schema": 2, "temperature": ' + b"9" * 5_000_000 + b"}", b'{"schema": 2, "labels": "' + b"x" * 5_000_000,
        b"\xff\xfe{\x00", b'{"schema": 2}\x00', b'{"schema": 2, "\\ud800": 1}', b"null", b"", b'"schema"',
    ],
    ids=lambda text: repr(text[:24]),
)  # fmt: skip
def test_a_hostile_model_json_is_refused(
    bundle: Path, image: Path, capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    (bundle / "model.json").write_bytes(text)
    sign_all(bundle)
    assert "model.json: " in refused(bundle, image, capsys)


def test_a_model_json_of_a_gigabyte_is_not_parsed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearmargin.bundle.schema._MAX_BYTES", 1_000)
    with pytest.raises(BundleError, match=r"model\.json: larger than the limit of 1,000 bytes"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architecture__ensemble": 100}, "is missing"),
        ({"architecture__name": "x" * 10**6}, "at most 200 characters"),
        ({"architecture__name": "os.system"}, "no model 'os.system'"),
        ({"architecture__name": "../../evil"}, "no model"),
        ({"preprocessing__width": 2048, "preprocessing__height": 2048}, "do not fit the architecture"),
        ({"preprocessing__width": 10**9}, "preprocessing.width"),
        ({"architecture__field": 15, "architecture__thumbnail": 64}, r"has no context.onnx"),
    ],
    ids=["ensemble", "long name", "module", "path", "size", "huge size", "field"],
)
def test_an_architecture_that_the_weights_do_not_have_is_refused_before_it_is_made(
    bundle: Path, changes: dict[str, Any], why: str
) -> None:
    change_model(bundle, **changes)
    assert why in torch_refuses(bundle)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("timm:hf-hub:someone/model", {}),
        ("timm:hf_hub:someone/model", {}),
        ("timm:local-dir:/tmp", {}),
        ("timm:./model", {}),
        ("timm:", {}),
        ("timm:test_resnet", {"checkpoint_path": "CANARY"}),
        ("timm:test_resnet", {"pretrained_cfg": "hf-hub:someone/model"}),
        ("timm:test_resnet", {"pretrained_cfg_overlay": "x"}),
        ("timm:test_resnet", {"features_only": True}),
        ("timm:test_resnet", {"cache_dir": "x"}),
        ("timm:test_resnet", {"scriptable": True}),
        ("timm:test_resnet", {"norm_layer": "../../evil.py"}),
        ("timm:test_resnet", {"act_layer": "os.system"}),
        ("timm:test_resnet", {"act_layer": "Module.__init_subclass__"}),
        ("timm:test_vit", {"depth": 10**9}),
        ("timm:test_vit", {"embed_dim": 10**9}),
        ("timm:test_vit", {"img_size": 16_384}),
        ("timm:test_vit", {"embed_dim": 1e308}),
        ("timm:test_vit", {f"a{number}": 1 for number in range(1_000)}),
        ("timm:vit_giant_patch14_224", {}),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_network_of_timm_that_fetches_opens_or_swells_is_refused(
    bundle: Path, canary: Canary, tmp_path: Path, name: str, arguments: dict[str, Any]
) -> None:
    import_timm()
    path = tmp_path / "canary.pth"
    path.write_bytes(canary.pickles()["torch"])
    given = {key: str(path) if value == "CANARY" else value for key, value in arguments.items()}
    change_model(bundle, architecture__name=name, architecture__arguments=given)
    said = torch_refuses(bundle)
    assert len(said) < 700
    assert not canary.mark.exists()


def with_node(content: bytes, kind: str, *, domain: str = "") -> bytes:
    model = onnx.load_model_from_string(content)
    body = helper.make_graph([], "body", [], [])
    attributes = {"body": body} if kind in ("Loop", "Scan") else {}
    if kind == "If":
        attributes = {"then_branch": body, "else_branch": body}
    inputs = []
    if kind == "ConstantOfShape":
        model.graph.initializer.append(helper.make_tensor("terabyte", TensorProto.INT64, [1], [2**40]))
        inputs = ["terabyte"]
    model.graph.node.append(helper.make_node(kind, inputs, ["unused"], domain=domain, **attributes))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("kind", "domain"),
    [
        ("PyOp", "ai.onnx.contrib"),
        ("Loop", ""),
        ("If", ""),
        ("Scan", ""),
        ("ConstantOfShape", ""),
        ("Attention", "com.microsoft"),
    ],
)
@pytest.mark.parametrize("single", [False, True])
def test_a_hostile_network_is_refused_at_the_command_line(  # noqa: PLR0917
    bundle: Path, image: Path, capsys: pytest.CaptureFixture[str], kind: str, domain: str, single: bool
) -> None:  # fmt: skip
    (bundle / "model.onnx").write_bytes(with_node((bundle / "model.onnx").read_bytes(), kind, domain=domain))
    sign_all(bundle)
    assert "model.onnx: refused, since it " in refused(single_file_of(bundle) if single else bundle, image, capsys)


def test_weights_outside_of_the_network_are_not_read(
    bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load_model_from_string((bundle / "model.onnx").read_bytes())
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    (tmp_path / "outside.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="outside.bin")
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    sign_all(bundle)
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look
    assert "weights that lie in another file" in refused(bundle, image, capsys)


@pytest.mark.parametrize("name", [*REQUIRED, SUMS])
def test_a_link_that_leads_out_of_the_folder_is_refused(
    bundle: Path, tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (bundle / name).rename(tmp_path / "secret")
    (bundle / name).symlink_to(Path("..") / "secret")
    assert f"{name}: is a link that leads out of the bundle" in refused(bundle, image, capsys)
    (bundle / name).unlink()
    (bundle / name).symlink_to(tmp_path / "nowhere")
    refused(bundle, image, capsys)


def test_a_link_within_the_folder_and_to_the_folder_is_fine(bundle: Path, tmp_path: Path) -> None:
    (bundle / "MODEL_CARD.md").rename(bundle / "card.md")
    (bundle / "MODEL_CARD.md").symlink_to("card.md")
    (tmp_path / "link").symlink_to(bundle)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "bundle").symlink_to(bundle)
    assert read_bundle(tmp_path / "link").sha256 == read_bundle(tmp_path / "run").sha256 == read_bundle(bundle).sha256


def test_a_hash_that_is_wrong_is_refused_in_both_forms(
    bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "MODEL_CARD.md").write_text("# Cleared by the FDA\n")
    for place in (bundle, single_file_of(bundle)):
        assert "MODEL_CARD.md: the content is not the one that SHA256SUMS names" in refused(place, image, capsys)
