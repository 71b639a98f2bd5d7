"""The network under ONNX Runtime, on networks of a few nodes written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from clearmargin.errors import BundleError
from clearmargin.predict.session import MAX_BATCH, Session


def mean_network(
    shape: tuple[Any, ...] = ("batch", 4, 6, 3),
    *,
    kind: int = TensorProto.UINT8,
    keepdims: int = 0,
    times: float = 1.0,
    features: bool = False,
) -> bytes:
    """The mean of an image's values, times a number; its features are the means of its channels."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=keepdims),
        helper.make_node("Mul", ["mean", "times"], ["logits"]),
    ]
    if features:
        nodes.append(helper.make_node("ReduceMean", ["floats", "places"], ["features"], keepdims=0))
    rank = len(shape) if keepdims else 1
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("images", kind, shape)],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *[1] * (rank - 1)]),
            *([helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3])] if features else []),
        ],
        [
            helper.make_tensor("axes", TensorProto.INT64, [len(shape) - 1], list(range(1, len(shape)))),
            helper.make_tensor("places", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("times", TensorProto.FLOAT, [], [times]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def noise(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (number, 4, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("number", [0, 1, MAX_BATCH, 2 * MAX_BATCH + 3])
def test_every_image_has_its_logit_in_order(number: int) -> None:
    images = noise(number)
    logits = Session(mean_network()).logits(images)
    assert logits.shape == (number,)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, images.astype(np.float64).mean(axis=(1, 2, 3)), rtol=1e-5)


def test_features_come_with_the_logits_where_the_file_gives_them() -> None:
    images = noise(2 * MAX_BATCH + 3)
    session = Session(mean_network(features=True))
    assert session.has_features
    logits, features = session.describe(images)
    np.testing.assert_array_equal(logits, session.logits(images))
    np.testing.assert_allclose(features, images.astype(np.float64).mean(axis=(1, 2)), rtol=1e-5)


def test_a_file_of_an_early_version_decides_and_says_that_it_has_no_features() -> None:
    session = Session(mean_network(), name="old/model.onnx")
    assert not session.has_features
    with pytest.raises(BundleError, match=r"old/model\.onnx: gives no features"):
        session.describe(noise(2))


def test_a_memory_map_and_a_view_with_gaps_are_read_batch_by_batch(tmp_path: Path) -> None:
    images = noise(40)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    session = Session(mean_network())
    session.batch = 7
    np.testing.assert_allclose(session.logits(mapped[::2]), session.logits(images)[::2], rtol=1e-6)


@pytest.mark.parametrize(("side", "batch"), [(50, 32), (128, 32), (512, 2), (2048, 1), (3000, 1)])
def test_large_images_come_in_small_batches(side: int, batch: int) -> None:
    session = Session(mean_network(("batch", side, side, 3)))
    assert session.image_shape == (side, side, 3)
    assert session.batch == batch


@pytest.mark.parametrize("times", [float("nan"), float("inf")])
def test_a_logit_that_is_no_finite_number_never_becomes_a_decision(times: float) -> None:
    session = Session(mean_network(times=times), name="here/model.onnx")
    with pytest.raises(BundleError, match=r"here/model\.onnx: the network gives (nan|inf) for an image"):
        session.logits(noise(3))


@pytest.mark.parametrize(
    "content",
    [
        mean_network(kind=TensorProto.FLOAT),
        mean_network(("batch", 4, 6)),
        mean_network(("batch", "height", "width", 3)),
        mean_network(keepdims=1),
    ],
    ids=["floats", "no channels", "any size", "maps"],
)
def test_a_network_that_takes_or_gives_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx: refused, since it is not a network from uint8"):
        Session(content)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", mean_network()[:-20]])
def test_bytes_that_are_no_network_are_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"^x\.onnx: ") as caught:
        Session(content, name="x.onnx")
    assert "\n" not in str(caught.value)
