"""A Keras 2.0 model that others trained on IDC patches, on real patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.bundle.keras.conftest import keras_probabilities, our_probabilities, quietly

from clearmargin.bundle.keras.network import ImportOptions, read_network
from clearmargin.bundle.keras.write import write_keras
from clearmargin.errors import DataError
from clearmargin.images.preprocess import Preprocessing

pytestmark = pytest.mark.real
PER_CLASS = 60


@pytest.fixture
def patches(real_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Patches (N, 50, 50, 3) from 0 to 1, and their labels."""
    spec, found, labels = Preprocessing(width=50, height=50, fit="stretch", interpolation="bilinear"), [], []
    for label in (0, 1):
        files = sorted((real_data / "idc").glob(f"*/{label}/*.png"))
        for file in files[:: len(files) // PER_CLASS]:
            found.append(spec.read(file))
            labels.append(label)
    return np.stack(found).astype(np.float32) / 255, np.array(labels)


def test_it_tells_the_classes_apart_and_its_rebuild_in_keras_agrees(
    keras: object, real_data: Path, patches: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    pixels, labels = patches
    network = read_network(real_data / "keras" / "alexnet_model.h5")
    assert (network.keras_version, network.head, network.graph.input) == ("2.0.5", "softmax", (50, 50, 3))
    probabilities = our_probabilities(network.classifier(), pixels)
    malignant, benign = probabilities[labels == 1], probabilities[labels == 0]
    assert (malignant[:, None] > benign).mean() > 0.85  # the AUROC
    write_keras(tmp_path / "rebuilt.keras", network.graph, network.tensors)
    with quietly():
        rebuilt = keras.models.load_model(tmp_path / "rebuilt.keras", compile=False)  # type: ignore[attr-defined]
    np.testing.assert_allclose(keras_probabilities(rebuilt, pixels), probabilities, atol=1e-5)


def test_a_real_file_of_weights_alone_says_what_to_do(real_data: Path) -> None:
    (path,) = (real_data / "backbones" / "squeezenet").glob("*.h5")
    with pytest.raises(DataError, match="--recipe NAME"):
        read_network(path)
    with pytest.raises(DataError, match=r"does not fit the recipe 'cancernet'.*'uniform1'"):
        read_network(path, ImportOptions(recipe="cancernet"))
