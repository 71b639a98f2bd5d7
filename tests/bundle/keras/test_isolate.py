"""The child that reads: the same network, the same errors, and a crash or a hang is one line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from tests.bundle.keras.files import write_small

from clearmargin.bundle.keras import isolate
from clearmargin.bundle.keras.isolate import read_isolated
from clearmargin.bundle.keras.network import ImportOptions, read_network
from clearmargin.errors import DataError, UsageError


def test_the_child_reads_what_this_process_would(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.h5", batch_input_shape=[None, None, None, 3])
    options = ImportOptions(
        scale=Fraction(2, 255), offset=Fraction(-1, 3), channels="bgr", size=(9, 8), malignant_index=0
    )
    here, there = read_network(path, options), read_isolated(path, options)
    assert (there.graph, there.head, there.scale, there.offset) == (here.graph, here.head, here.scale, here.offset)
    assert (there.keras_version, there.format, there.whole, there.inside) == ("2.2.4", "h5", True, here.inside)
    assert set(there.tensors) == set(here.tensors)
    assert all(torch.equal(there.tensors[name], tensor) for name, tensor in here.tensors.items())


def test_its_errors_are_those_of_this_process(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.h5")
    with pytest.raises(DataError, match="8×8 pixels, not of 9×8"):
        read_isolated(path, ImportOptions(size=(9, 8)))


def test_an_answer_of_a_crashed_or_conquered_child_is_checked(tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    file = tmp_path / "a.h5"
    with pytest.raises(DataError, match="crashed"):
        isolate._read_answer(answer, file, -11)
    answer.write_text('{"graph": {"input": [8, 8, 3], "nodes": []}}')
    with pytest.raises(DataError, match="not read rightly"):
        isolate._read_answer(answer, file, 0)
    network = read_network(write_small(file))
    made = isolate._Answer(graph=network.graph)
    (tmp_path / "weights").write_bytes(b"x")
    with pytest.raises(DataError, match="weights were not read rightly"):
        isolate._rebuild(made, tmp_path / "weights", file)
    from safetensors.torch import save_file

    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "weights")
    with pytest.raises(DataError, match="weights were not read rightly"):
        isolate._rebuild(made, tmp_path / "weights", file)
    assert issubclass(isolate._ERRORS["usage"], UsageError)


def test_a_file_on_which_the_child_never_comes_back_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"takes longer than 0\.01 s to read"):
        read_isolated(write_small(tmp_path / "a.h5"), ImportOptions(), timeout_s=0.01)
