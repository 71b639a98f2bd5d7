"""A bundle with a context: its second network goes along, and a model.json that names what is not there is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.bundle.small_bundle import every_choice, lived_model, model_file
from tests.slides import Placed, sign_all

from clearmargin.bundle.read import FIELD, REQUIRED, SUMS, read_bundle
from clearmargin.bundle.schema import Architecture, Context, ModelFile, parse_model_file
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.bundle.write import Network, rewrite_bundle, write_bundle
from clearmargin.context import Grid
from clearmargin.errors import BundleError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.types import OperatingPoint

SPEC = Preprocessing(width=16, height=16)


def context(**grid: Any) -> Context:
    point = OperatingPoint("balanced", "largest balanced accuracy", 0.3)
    return Context(
        grid=Grid(**({"step": 50, "scale": 1.5} | grid)),
        temperature=1.3,
        operating_points={"balanced": point},
        operating_point="balanced",
    )


def with_field(*, networks: int = 2) -> ModelFile:
    plain = model_file(SPEC)
    architecture = Architecture(name="cbis_ddsm", parameters=9, field=5, thumbnail=4)
    return plain.model_copy(update={"architecture": architecture, "context": context(networks=networks)})


def parse(values: dict[str, Any]) -> ModelFile:
    return parse_model_file(json.dumps(values).encode(), "model.json")


def contents() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(with_field().to_json())
    return values


def put(values: dict[str, Any], place: str, value: object) -> None:
    *way, last = place.split(".")
    for name in way:
        values = values[name]
    values[last] = value


def test_a_context_is_read_back_as_it_was_written() -> None:
    model = with_field()
    assert parse(contents()) == model
    assert model.context is not None
    assert model.context.decide(np.array([0.29, 0.3])).tolist() == ["benign", "malignant"]
    assert model.decide(np.array([0.3])).tolist() == ["benign"]


def test_a_file_from_before_there_was_context_decides_alone() -> None:
    values = json.loads(model_file(SPEC, **every_choice()).to_json())
    for name in ("context", "no_context"):
        del values[name]
    for name in ("field", "thumbnail"):
        del values["architecture"][name]
    model = parse(values)
    assert (model.context, model.no_context) == (None, None)
    assert (model.architecture.field, model.architecture.thumbnail) == (None, None)


HOSTILE = [
    ("context.grid.step", 0), ("context.grid.step", -50), ("context.grid.step", 2**40), ("context.grid.step", 2.5),
    ("context.grid.scale", float("nan")), ("context.grid.scale", float("inf")), ("context.grid.scale", 0.0),
    ("context.grid.scale", -1.0), ("context.grid.scale", 1e300), ("context.grid.scale", None),
    ("context.grid.networks", 0), ("context.grid.networks", 3), ("context.grid.extra", 1),
    ("context.kind", "graph"), ("context.grid", None), ("context.extra", 1), ("context", {}), ("context", []),
    ("context.temperature", float("nan")), ("context.temperature", 0), ("context.operating_point", "other"),
    ("context.operating_points", {}), ("context.levels", {"breast": {"threshold": 0.5}}),
    ("architecture.field", None), ("architecture.thumbnail", None), ("architecture.field", 4),
    ("architecture.field", 1), ("architecture.field", 17), ("architecture.field", 10**9),
    ("architecture.thumbnail", 3), ("architecture.thumbnail", 10**6),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), HOSTILE, ids=lambda value: repr(value)[:50])
def test_a_hostile_context_is_refused_in_one_line(place: str, value: object) -> None:
    values = contents()
    put(values, place, value)
    with pytest.raises(BundleError, match=r"^model\.json: .*The bundle is damaged; make it anew\.$") as caught:
        parse(values)
    assert "\n" not in str(caught.value)
    assert place.partition(".")[0] in str(caught.value)


def test_a_second_network_that_the_architecture_does_not_have_is_refused() -> None:
    values = contents()
    values["architecture"] |= {"field": None, "thumbnail": None}
    with pytest.raises(BundleError, match="context weighs a network that the architecture does not have"):
        parse(values)
    values["context"]["grid"]["networks"] = 1
    assert parse(values).architecture.field is None


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a second network, whose ONNX files are a few bytes."""
    first, second = lived_model("cbis_ddsm", SPEC.shape), lived_model("cbis_ddsm", (20, 20, 3))
    folder = tmp_path / "bundle"
    write_bundle(
        folder, with_field(), Network(first.state_dict(), b"first"), field=Network(second.state_dict(), b"second")
    )
    return folder


def test_the_second_network_is_two_files_more(bundle: Path) -> None:
    assert {file.name for file in bundle.iterdir()} == {*REQUIRED, *FIELD, SUMS}
    read = read_bundle(bundle)
    assert set(read.sums) == {*REQUIRED, *FIELD}
    assert read.read("context.onnx") == b"second"
    assert read.model == with_field()


def test_it_goes_along_when_decisions_change_and_changes_the_identity(bundle: Path, tmp_path: Path) -> None:
    before = read_bundle(bundle)
    rewrite_bundle(before, tmp_path / "same")
    rewrite_bundle(before, tmp_path / "other", with_field(networks=1))
    same, other = read_bundle(tmp_path / "same"), read_bundle(tmp_path / "other")
    assert same.sums == before.sums
    assert [other.read(name) for name in FIELD] == [before.read(name) for name in FIELD]
    assert other.sha256 != before.sha256
    (bundle / "context.onnx").write_bytes(b"another")
    sign_all(bundle)
    assert read_bundle(bundle).sha256 != before.sha256


def test_torch_has_either_network(bundle: Path) -> None:
    read = read_bundle(bundle)
    for field, px in ((False, 16), (True, 20)):
        model, expected = load_torch_model(read, field=field), lived_model("cbis_ddsm", (px, px, 3))
        x = torch.rand(2, 3, px, px, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(model(x), expected(x), rtol=0, atol=0)


@pytest.mark.parametrize("lost", [*FIELD, "both"])
def test_a_second_network_that_is_named_and_not_there_is_missed_at_once(lost: str, bundle: Path) -> None:
    names = FIELD if lost == "both" else (lost,)
    for name in names:
        (bundle / name).unlink()
    with pytest.raises(BundleError, match=r"context\.(onnx|safetensors)"):
        read_bundle(bundle)
    sign_all(bundle)
    with pytest.raises(BundleError, match=rf"has no {' and no '.join(names)}, which model\.json names"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", FIELD)
def test_a_changed_byte_of_the_second_network_is_noticed(name: str, bundle: Path) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (bundle / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match="changed or damaged"):
        read_bundle(bundle)


def test_weights_of_another_size_do_not_fit(bundle: Path) -> None:
    shutil.copy(bundle / "weights.safetensors", bundle / "context.safetensors")
    sign_all(bundle)
    with pytest.raises(BundleError, match="the weights do not fit the architecture"):
        load_torch_model(read_bundle(bundle), field=True)


def test_a_trained_bundle_computes_the_same_in_torch_and_onnx(placed: Placed, quick_networks: None) -> None:
    from clearmargin.models.contract import Deployed
    from clearmargin.predict.predictor import Predictor

    read = read_bundle(placed.run)
    assert read.model.architecture.ensemble == 3
    predictor = Predictor(read)
    for field, px, logits in ((False, 12, predictor.logits), (True, 15, predictor._field_session.logits)):
        images = np.random.default_rng(0).integers(0, 256, (5, px, px, 3), dtype=np.uint8)
        deployed = Deployed(load_torch_model(read, field=field), 0.5, 0.1).eval()
        with torch.inference_mode():
            np.testing.assert_allclose(logits(images), deployed(torch.from_numpy(images))[0].numpy(), atol=1e-5)
