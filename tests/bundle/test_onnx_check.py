"""What our exports write passes; whatever else an ONNX file can hold does not. The onnx package is the oracle."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper
from tests.bundle.small_bundle import lived_model
from torch import Tensor, nn

from clearmargin.bundle import onnx_check
from clearmargin.bundle.export import _export
from clearmargin.bundle.onnx_check import OPERATORS, OPSETS, check_onnx
from clearmargin.bundle.wire import BYTES, FIXED_32, VARINT, Field, WireError, read_message
from clearmargin.errors import BundleError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Classifier, Deployed
from clearmargin.models.ensemble import Ensemble
from clearmargin.predict.session import Session

SPEC = Preprocessing(width=16, height=16)
Change = Callable[[ModelProto], object]


def small_network() -> ModelProto:
    """Mean of the pixels, and as a feature the same."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["logits"], keepdims=0),
        helper.make_node("Unsqueeze", ["logits", "one"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4, 6, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 1]),
        ],
        [helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
         helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def check(model: ModelProto | bytes) -> None:
    check_onnx(model if isinstance(model, bytes) else model.SerializeToString(), "model.onnx")


def refused(model: ModelProto | bytes, why: str) -> None:
    with pytest.raises(BundleError, match=rf"^model\.onnx: refused, since it .*{why}") as caught:
        check(model)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    content = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(BundleError, match=r"^model\.onnx: refused"):
        Session(content)


def test_a_network_of_one_or_two_outputs_passes_and_runs() -> None:
    model = small_network()
    check(model)
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    logits, features = Session(model.SerializeToString()).describe(images)
    np.testing.assert_allclose(logits, images.mean(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(features[:, 0], logits)
    del model.graph.node[2], model.graph.output[1], model.graph.initializer[1]
    check(model)
    assert not Session(model.SerializeToString()).has_features


class _Around(Classifier):
    """A classifier around one layer or function of (B, 3, 16, 16)."""

    def __init__(self, layer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer

    def forward_features(self, x: Tensor) -> Tensor:
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        return self.layer(features).flatten(1).mean(1)


class _Everything(nn.Module):
    """Layers in a row, such as an imported network has, most of them once."""

    def __init__(self) -> None:
        super().__init__()
        activations = [nn.ELU(), nn.SELU(), nn.LeakyReLU(), nn.PReLU(), nn.Softplus(), nn.Softsign(), nn.Tanh(),
                       nn.Hardsigmoid(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.ReLU6(), nn.Softmax(1),
                       nn.LogSoftmax(1), nn.Mish(), nn.Hardswish(), nn.Sigmoid(), nn.Threshold(0.1, 0.0)]  # fmt: skip
        self.first = nn.Sequential(
            nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), *activations,
            nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, padding=1, count_include_pad=False), nn.GroupNorm(2, 8),
            nn.InstanceNorm2d(8, affine=True), nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.ConvTranspose2d(8, 8, 3, stride=2), nn.Upsample(scale_factor=2),
            nn.Upsample(size=(12, 12), mode="bilinear"), nn.ReflectionPad2d(1), nn.LayerNorm(14),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.cat([x, x.flip(3), x[:, [1, 0]]], dim=1).permute(0, 2, 3, 1)
        x = x[:, 1:-1, ::2].clamp(-3, 3) * x.amax(dim=(1, 2), keepdim=True)
        x = torch.where(x > 0.1, x, x.abs().sqrt()) - torch.maximum(x, x.mean(-1, keepdim=True)) + torch.erf(x)
        x = x / (1 + x.square().sum(dim=3, keepdim=True)) @ x.transpose(2, 3)
        return x.reshape(x.shape[0], -1, 4).softmax(-1).prod(-1)


@cache
def exported(name: str) -> bytes:
    model: Classifier
    if name == "every layer":
        model = _Around(_Everything())
    elif name == "ensemble":
        model = Ensemble([lived_model("cbis_ddsm", SPEC.shape) for _ in range(2)])
    else:
        model = lived_model(name, SPEC.shape)
    return _export(Deployed(model.eval(), 0.5, 0.25).eval(), SPEC)


@pytest.mark.parametrize("name", ["cbis_ddsm", "every layer", "ensemble"])
def test_our_own_exports_pass(name: str) -> None:
    check(exported(name))
    assert {node.op_type for node in onnx.load_model_from_string(exported(name)).graph.node} <= OPERATORS


def test_every_operator_of_the_list_is_one_of_onnx_that_only_computes() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert known >= OPERATORS
    graphs = {
        schema.name
        for schema in onnx.defs.get_all_schemas()
        if any(each.type == AttributeProto.GRAPH for each in [*map(_type_of, schema.attributes.values())])
    }
    assert {"If", "Loop", "Scan"} <= graphs
    assert not OPERATORS & graphs
    assert onnx.defs.onnx_opset_version() in OPSETS


def _type_of(attribute: Any) -> Any:
    return type("T", (), {"type": int(attribute.type.value)})


def node(model: ModelProto, kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    model.graph.node.append(helper.make_node(kind, [*inputs], [f"out{len(model.graph.node)}"], **attributes))
    return model.graph.node[-1]


def subgraph() -> onnx.GraphProto:
    return helper.make_graph([], "inner", [], [])


def constant(model: ModelProto, name: str, values: list[Any], kind: int = TensorProto.INT64) -> str:
    model.graph.initializer.append(helper.make_tensor(name, kind, [len(values)], values))
    return name


HOSTILE: dict[str, tuple[Change, str]] = {
    "python": (lambda m: setattr(node(m, "PyOp"), "domain", "ai.onnx.contrib"), "operator 'PyOp' of 'ai.onnx.contrib'"),
    "microsoft": (lambda m: setattr(node(m, "FusedConv"), "domain", "com.microsoft"), "of 'com.microsoft'"),
    "imported domain": (
        lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1)),
        "takes operators from",
    ),
    "two versions": (lambda m: m.opset_import.append(helper.make_opsetid("", 18)), "several versions"),
    "no version": (lambda m: m.ClearField("opset_import"), "no ONNX network"),
    "old opset": (lambda m: setattr(m.opset_import[0], "version", 7), "opset 7"),
    "far opset": (lambda m: setattr(m.opset_import[0], "version", 2**62), "opset 4611686018427387904"),
    "loop": (lambda m: node(m, "Loop", body=subgraph()), "operator 'Loop'"),
    "if": (lambda m: node(m, "If", then_branch=subgraph(), else_branch=subgraph()), "operator 'If'"),
    "scan": (lambda m: node(m, "Scan", body=subgraph(), num_scan_inputs=1), "operator 'Scan'"),
    "hidden graph": (lambda m: node(m, "Relu", body=subgraph()), "a graph within the graph"),
    "hidden graphs": (lambda m: node(m, "Relu", body=[subgraph()]), "a graph within the graph"),
    "random": (lambda m: node(m, "RandomNormal", shape=[3]), "operator 'RandomNormal'"),
    "text": (lambda m: node(m, "StringConcat"), "operator 'StringConcat'"),
    "sequence": (lambda m: node(m, "SequenceConstruct"), "operator 'SequenceConstruct'"),
    "function": (
        lambda m: m.functions.append(helper.make_function("", "Relu", [], [], [], [helper.make_opsetid("", 18)])),
        "functions of its own",
    ),
    "training": (lambda m: m.training_info.add(), "a part for training"),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), "a sparse tensor"),
    "sparse constant": (
        lambda m: node(m, "Constant").attribute.add(name="sparse_value").sparse_tensor.dims.append(1),
        "a sparse",
    ),
    "quantised": (lambda m: m.graph.quantization_annotation.add(), "a quantisation"),
    "outside": (
        lambda m: m.graph.initializer[0].external_data.add(key="location", value="/etc/passwd"),
        "in another file",
    ),
    "outside by flag": (
        lambda m: setattr(m.graph.initializer[0], "data_location", TensorProto.EXTERNAL),
        "in another file",
    ),
    "outside in a constant": (
        lambda m: node(m, "Constant", value=helper.make_tensor("c", 1, [1], [1.0])).attribute[0].t.external_data.add(
            key="location", value="../x"),
        "in another file",
    ),
    "larger than it is": (lambda m: m.graph.initializer[0].dims.append(2**40), "says to have 3,298,534,883,328 values"),
    "smaller than it is": (lambda m: m.graph.initializer[0].dims.__setitem__(0, 2), "says to have 2 values"),
    "negative": (lambda m: m.graph.initializer[0].dims.__setitem__(0, -3), "impossible shape"),
    "both raw and typed": (lambda m: setattr(m.graph.initializer[0], "raw_data", bytes(24)), "says to have 3 values"),
    "texts": (
        lambda m: m.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [1], [b"x"])),
        "tensor of texts|kind",
    ),
    "complex": (
        lambda m: m.graph.initializer.append(TensorProto(name="c", data_type=TensorProto.COMPLEX64)),
        "of a kind \\(14\\)",
    ),
    "segment": (lambda m: setattr(m.graph.initializer[0].segment, "begin", 1), "in segments"),
    "same name": (lambda m: constant(m, "axes", [1]), "two tensors called 'axes'"),
    "terabyte": (
        lambda m: node(m, "ConstantOfShape", constant(m, "s", [2**40])),
        "'ConstantOfShape' that asks for more",
    ),
    "terabyte of sides": (
        lambda m: node(m, "Expand", "floats", constant(m, "s", [2**14] * 3)),
        "'Expand' that asks for more",
    ),
    "tiles": (lambda m: node(m, "Tile", "floats", constant(m, "s", [1, 2**20, 2**20, 1])), "'Tile' that asks for more"),
    "range": (
        lambda m: node(m, "Range", constant(m, "a", [0]), constant(m, "b", [2**40]), "one"),
        "'Range' that asks for more",
    ),
    "pads": (lambda m: node(m, "Pad", "floats", constant(m, "s", [0] * 7 + [2**30])), "'Pad' that asks for more"),
    "resize": (
        lambda m: node(m, "Resize", "floats", "", constant(m, "s", [1.0, 1e6, 1e6, 1.0], 1)),
        "'Resize' that asks",
    ),
    "resize to infinity": (
        lambda m: node(m, "Resize", "floats", "", constant(m, "s", [float("inf")] * 4, 1)),
        "'Resize' that asks",
    ),
    "terabyte in a constant node": (
        lambda m: node(
            m, "ConstantOfShape", node(m, "Constant", value=helper.make_tensor("c", 7, [1], [2**40])).output[0]
        ),
        "'ConstantOfShape' that asks for more",
    ),
    "strides": (
        lambda m: node(m, "MaxPool", "floats", kernel_shape=[2**40, 1], strides=[1, 1]),
        "number beyond 65,536",
    ),
    "another input": (
        lambda m: m.graph.input.append(helper.make_tensor_value_info("more", 1, [1])),
        "is not a network from",
    ),
    "another output": (
        lambda m: m.graph.output.append(helper.make_tensor_value_info("more", 1, [1])),
        "is not a network from",
    ),
    "one shape only": (
        lambda m: m.graph.input[0].type.tensor_type.shape.dim[0].__setattr__("dim_value", 1),
        "is not a network",
    ),
    "huge images": (
        lambda m: m.graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", 2**31),
        "is not a network",
    ),
    "other names": (lambda m: setattr(m.graph.output[0], "name", "malignant"), "is not a network from"),
    "a sequence": (
        lambda m: m.graph.output[0].type.sequence_type.elem_type.tensor_type.__setattr__("elem_type", 1),
        "no tensor",
    ),
    "a map": (lambda m: m.graph.value_info.add(name="m").type.map_type.__setattr__("key_type", 7), "no tensor"),
    "overload": (lambda m: setattr(m.graph.node[0], "overload", "x"), "an overload"),
    "reference": (lambda m: setattr(m.graph.node[0].attribute[0], "ref_attr_name", "x"), "attribute of a function"),
    "terminal codes": (lambda m: setattr(node(m, "\x1b[2J\nPyOp"), "domain", "a\nb"), "is not one of ONNX"),
    "no graph": (lambda m: m.ClearField("graph"), "no ONNX network"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_network_that_holds_what_ours_do_not_is_refused_in_one_line(name: str) -> None:
    change, why = HOSTILE[name]
    model = small_network()
    check(model)
    change(model)
    refused(model, why)


def test_a_field_that_readers_would_merge_or_skip_is_refused() -> None:
    content = small_network().SerializeToString()
    graph = small_network().graph
    graph.ClearField("output")
    graph.ClearField("input")
    hidden = graph.SerializeToString()
    refused(content + b"\x3a" + _varint(len(hidden)) + hidden, "says twice")
    refused(content + b"\xfa\x01\x01x", "field 31")
    refused(content + b"\x0b", "another kind|written in a way")  # a group
    refused(content[:-1], "")
    refused(content + b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "")


def test_deep_nesting_is_no_depth_for_a_reader_that_does_not_recurse() -> None:
    inner = b""
    for _ in range(3_000):
        inner = b"\x32" + _varint(len(inner)) + inner
    refused(b"\x08\x0a\x42\x02\x10\x12\x3a" + _varint(len(inner)) + inner, "")


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def test_the_reader_says_what_the_onnx_package_says() -> None:
    content = exported("every layer")
    model = onnx.load_model_from_string(content)
    ours = read_message(memoryview(content), onnx_check._MODEL)
    graph = read_message(ours["graph"], onnx_check._GRAPH)
    assert [bytes(each).decode() for each in (read_message(n, onnx_check._NODE)["op_type"] for n in graph["node"])] == [
        each.op_type for each in model.graph.node
    ]
    for data, tensor in zip(graph["initializer"], model.graph.initializer, strict=True):
        found = read_message(data, onnx_check._TENSOR)
        assert found["dims"] == list(tensor.dims)
        assert bytes(found["name"]).decode() == tensor.name
        if tensor.data_type == TensorProto.INT64 and np.prod(tensor.dims) <= 64:
            assert onnx_check._check_tensor(found) == onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()


@pytest.mark.parametrize("values", [[1, 2, 3], [-1, 2**62, -(2**63)], []])
@pytest.mark.parametrize("raw", [False, True])
def test_numbers_are_read_as_the_onnx_package_wrote_them(values: list[int], raw: bool) -> None:
    data: Any = struct.pack(f"<{len(values)}q", *values) if raw else values
    tensor = helper.make_tensor("t", TensorProto.INT64, [len(values)], data, raw=raw)
    found = read_message(memoryview(tensor.SerializeToString()), onnx_check._TENSOR)
    assert onnx_check._check_tensor(found) == values


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_bytes_are_changed_the_answer_is_yes_or_one_line(data: st.DataObject) -> None:
    content = bytearray(small_network().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        check(bytes(content))
    except BundleError as error:
        assert str(error).isprintable()
    else:
        onnx.load_model_from_string(bytes(content))  # what we can read, the oracle can too


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(content: bytes) -> None:
    fields = {1: Field("a", VARINT, many=True), 2: Field("b"), 3: Field("c", FIXED_32), 4: Field("d", BYTES, many=True)}
    try:
        found = read_message(memoryview(content), fields)
    except WireError as error:
        assert str(error).isprintable()
    else:
        assert all(-(2**63) <= number < 2**63 for number in found["a"])


def grower(kind: str, *, times: int = 45) -> bytes:
    """A network that no look at its constants gives away, and that asks for far more than its input."""
    model = small_network()
    if kind == "doubling":
        for number in range(times):
            name = "floats" if number == 0 else f"d{number - 1}"
            model.graph.node.append(helper.make_node("Concat", [name, name], [f"d{number}"], axis=1))
        last = f"d{times - 1}"
    else:
        constant(model, "big", [2**20])
        model.graph.node.append(helper.make_node("Mul", ["big", "big"], ["size"]))
        model.graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["grown"]))
        last = "grown"
    constant(model, "all", [1, 2, 3] if kind == "doubling" else [0])
    model.graph.node.append(helper.make_node("ReduceMax", [last, "all"], ["most"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["logits", "most"], ["other"]))
    model.graph.output[0].name = "other"
    for each in model.graph.node:
        for names in (each.input, each.output):
            swapped = [{"logits": "inner", "other": "logits"}.get(name, name) for name in names]
            del names[:]
            names.extend(swapped)
    model.graph.output[0].name = "logits"
    return model.SerializeToString()


def test_a_size_that_is_computed_is_refused_when_it_is_asked_for() -> None:
    with pytest.raises(BundleError, match=r"model\.onnx: the network needs more memory than it may have") as caught:
        Session(grower("computed size")).logits(np.zeros((2, 4, 6, 3), np.uint8))
    assert "\n" not in str(caught.value)


def run_within_128_mb(path: Path, images: int) -> str:
    """What a process says whose networks share 128 MB: the logits, or why there are none."""
    code = """
import sys, numpy as np
from clearmargin.bundle import runtime
from clearmargin.predict import session
runtime._SHARE_OF_MEMORY = 2**27 / (runtime.os.sysconf("SC_PAGE_SIZE") * runtime.os.sysconf("SC_PHYS_PAGES"))
network = session.Session(open(sys.argv[1], "rb").read())
images = np.arange(int(sys.argv[2]), dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)
try:
    print(network.logits(images).tolist())
except session.BundleError as error:
    print(error)
"""
    words = [sys.executable, "-c", code, str(path), str(images)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    return done.stdout


def test_a_network_that_doubles_and_doubles_ends_at_its_share_of_memory(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(grower("doubling"))
    assert "needs more memory than it may have" in run_within_128_mb(tmp_path / "model.onnx", 1)


def test_a_batch_that_does_not_fit_is_computed_by_halves(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(grower("doubling", times=16))  # 28 MB an image
    said = run_within_128_mb(tmp_path / "model.onnx", 9)
    assert json.loads(said) == [2.0 * number for number in range(9)]
