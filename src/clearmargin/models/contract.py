"""What every model is: features, then a head that gives one logit of malignant for each image.

Also the two steps between packed uint8 images and a network, so that training, export and evaluation
share them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Classifier(nn.Module, ABC):
    """Contract: `forward(x) = forward_head(forward_features(x))`.

    x is (B, C, H, W) float, normalised. Features are (B, channels, h, w), the last feature map with a
    sense of place; saliency methods rely on that. Logits are (B,).
    """

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) features."""

    @abstractmethod
    def forward_head(self, features: Tensor) -> Tensor:
        """(B,) logits of malignant."""

    def forward(self, x: Tensor) -> Tensor:
        """(B,) logits of malignant."""
        return self.forward_head(self.forward_features(x))


class LayeredClassifier(Classifier):
    """A model of two chains of layers, `features` and `head`; the head ends in one or two outputs.

    Two outputs are those of a softmax over (benign, malignant): its cross-entropy depends on their
    difference only, which is the logit of malignant.
    """

    def __init__(self, features: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped

    def forward_head(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.head(features)
        return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs[:, 0]


def scale_pixels(images: Tensor) -> Tensor:
    """(B, C, H, W) float32 in [0, 1] of packed images, (B, H, W, C) uint8."""
    return images.permute(0, 3, 1, 2).float().div_(255.0)


def normalise(x: Tensor, mean: float, std: float) -> Tensor:
    """(x - mean) / std, the last step of the preprocessing spec."""
    return (x - mean) / std if (mean, std) != (0.0, 1.0) else x


class Deployed(nn.Module):
    """The network as it is exported: packed images (B, H, W, C) uint8 in, logits (B,) and features (B, D) out.

    `features` are the means over places of the last feature map: what the network sees in an image, in short.
    """

    def __init__(self, model: Classifier, mean: float, std: float) -> None:
        super().__init__()
        self.model = model
        self.mean = mean
        self.std = std

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.forward_features(normalise(scale_pixels(images), self.mean, self.std))
        return self.model.forward_head(features), features.mean(dim=(2, 3))


def count_parameters(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def flat_features(features: nn.Sequential, shape: tuple[int, int, int]) -> int:
    """How many values the layers give for one image of shape (H, W, C)."""
    features.eval()
    with torch.no_grad():
        size = features(torch.zeros(1, shape[2], shape[0], shape[1])).numel()
    features.train()
    return int(size)
