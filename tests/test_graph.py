"""A graph is what a stranger wrote: shapes follow from the layers, and nothing is beyond the limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from clearmargin.graph import MAX_NODES, Graph, same_padding

CONV = {"kind": "conv", "name": "conv", "inputs": ["image"], "weights": "conv", "filters": 4, "kernel": [3, 3]}
MEAN = {"kind": "global_pool", "name": "mean", "inputs": ["conv"], "mode": "average"}
DENSE = {"kind": "dense", "name": "dense", "inputs": ["mean"], "weights": "dense", "units": 1}


def graph(*nodes: dict[str, Any], **changes: Any) -> Graph:
    content = {"input": [8, 8, 3], "nodes": list(nodes) or [CONV, MEAN, DENSE], **changes}
    return Graph.model_validate_json(json.dumps(content))


def test_shapes_and_parameters_follow_from_the_layers() -> None:
    small = graph()
    assert dict(small.shapes) == {"image": (8, 8, 3), "conv": (6, 6, 4), "mean": (4,), "dense": (1,)}
    assert dict(small.weights) == {
        "conv.weight": (4, 3, 3, 3),
        "conv.bias": (4,),
        "dense.weight": (1, 4),
        "dense.bias": (1,),
    }
    assert small.parameters == 108 + 4 + 4 + 1
    assert Graph.model_validate_json(small.model_dump_json()) == small


def between(**node: Any) -> list[dict[str, Any]]:
    return [CONV, {"name": "x", "inputs": ["conv"], **node}, {**MEAN, "inputs": ["x"]}, DENSE]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([CONV, MEAN], "one value or two"),
        ([CONV, MEAN, {**DENSE, "units": 3}], "one value or two"),
        ([CONV, CONV, MEAN, DENSE], "there twice"),
        ([MEAN, CONV, DENSE], "not before it"),
        ([CONV, {**MEAN, "inputs": ["image"]}, DENSE], "leads nowhere"),
        ([{**CONV, "kernel": [9, 9]}, MEAN, DENSE], "too small"),
        ([{**CONV, "groups": 2}, MEAN, DENSE], "no multiple of 2 groups"),
        ([{**CONV, "kind": "lambda"}, MEAN, DENSE], "kind"),
        ([{**CONV, "name": "a.b"}, MEAN, DENSE], "pattern"),
        ([{**CONV, "filters": 2**40}, MEAN, DENSE], "less than or equal"),
        ([{**CONV, "code": "x"}, MEAN, DENSE], "Extra inputs"),
        (between(kind="pad", margins=[4096, 4096, 4096, 4096]), "more than 67,108,864"),
        (between(kind="resize", size=[8192, 8192]), "more than 67,108,864"),
        (between(kind="conv", weights="x", filters=2**20, kernel=[99, 99], padding="same"), "more than 536,870,912"),
        (between(kind="conv", weights="conv", filters=4, kernel=[3, 3]), "shares weights of shape"),
        (between(kind="batch_norm", weights="conv", epsilon=0), "weights of another kind"),
        (between(kind="merge", operation="add"), "cannot take 1 inputs"),
        (between(kind="concat", axis=2, inputs=["conv", "image"]), "cannot be put together"),
        (between(kind="merge", operation="add", inputs=["conv", "image"]), "do not fit together"),
        (between(kind="relu", inputs=["conv", "image"]), "takes one input"),
        (between(kind="prelu", weights="x", shape=[6, 5, 4]), "do not fit"),
        (between(kind="rescale", scale=[1, 2], offset=[0]), "do not fit 4 channels"),
        (between(kind="rescale", scale=[1e300], offset=[0]), "less than or equal"),
        (between(kind="reshape", target=[5]), "cannot become"),
        (between(kind="permute", order=[0, 0, 1]), "no order of 3 axes"),
        (between(kind="flatten"), "needs a map"),
        ([], "at least 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(nodes: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        graph(nodes=nodes)


def test_no_more_nodes_than_the_limit() -> None:
    with pytest.raises(ValidationError, match=f"at most {MAX_NODES}"):
        graph(nodes=[{"kind": "softmax", "name": f"n{n}", "inputs": ["image"]} for n in range(MAX_NODES + 1)])


def test_sides_of_same_padding_give_all_windows() -> None:
    for side in range(1, 12):
        for kernel in range(1, 6):
            for stride in range(1, 4):
                before, after = same_padding(side, kernel, stride)
                assert after - before in (0, 1)
                windows = -(-side // stride)
                needed = (windows - 1) * stride + kernel
                assert needed == side + before + after or (needed < side and before == after == 0)
