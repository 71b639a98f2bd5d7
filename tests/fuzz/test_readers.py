"""Every reader, briefly: whatever bytes it is given, it gives what it promises or one line that says why not.

`make fuzz` does the same for longer, with inputs that are new each time.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from tests.fuzz import mutations, seeds
from tests.fuzz.targets import build_targets, decode, decode_in_child

TARGETS = build_targets()
BRIEF = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_reader(name: str) -> None:
    target = TARGETS[name]
    BRIEF(given(target.inputs)(lambda value: target.check(value) and None))()


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("names", "mias", "place")])
def test_the_seeds_themselves_are_read(name: str) -> None:
    files = {
        "png": seeds.png_seeds(),
        "jpeg": seeds.jpeg_seeds(),
        "bmp": seeds.bmp_seeds(),
        "ppm": seeds.ppm_seeds(),
        "tiff": seeds.tiff_seeds(),
        "npy": seeds.npy_seeds(),
        "dicom": seeds.dicom_seeds(),
        "npz": seeds.npz_seeds(),
        "zip": seeds.zip_seeds(),
        "csv": seeds.CSV_SEEDS,
        "parquet": seeds.parquet_seeds(),
        "bundle": seeds.bundle_seeds(),
        "onnx": seeds.onnx_seeds(),
        "weights": seeds.weights_seeds(),
        "keras": [json.dumps(seeds.keras_configs()[0])],
    }[name]
    outcomes = [TARGETS[name].check(data) for data in files]
    read = {"image", "table", "bundle", "network", "weights"}
    assert sum(outcome in read for outcome in outcomes) >= len(files) / 2, outcomes
    assert set(outcomes) <= {*read, "unsupported"}, outcomes


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations.files(seeds.tiff_seeds(), seeds.jpeg_seeds()))
def test_a_child_says_what_this_process_says(data: bytes) -> None:
    assert decode_in_child(data) == decode(data)
