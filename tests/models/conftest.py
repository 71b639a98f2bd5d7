"""timm, imported once whether or not torchvision is installed, and files of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from tests.models.torchvision_stand_in import import_timm


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    return import_timm()


@pytest.fixture
def timm_weights(timm: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    """Writes the weights of a network of timm, classifier and all, as timm's users have them."""

    def write(name: str, *, seed: int = 0, file: str = "model.safetensors", **arguments: object) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = timm.create_model(name, num_classes=10, **arguments)
            for parameter in network.parameters():  # away from zeros and ones, which would hide mistakes
                parameter.data.add_(0.02 * torch.randn(parameter.shape))
        path = tmp_path / file
        save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)
        return path

    return write
