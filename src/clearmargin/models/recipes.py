"""The networks of the five systems that the recipes reproduce, layer by layer as their authors wrote them.

Keras conventions are kept: convolutions without padding unless the author asked for it, Glorot-uniform
weights, zero biases, batch normalisation with momentum 0.99 and epsilon 1e-3. docs/recipes.md says where
a description left something open and what was chosen.
"""

from __future__ import annotations

from torch import nn

from clearmargin.models.contract import LayeredClassifier, flat_features
from clearmargin.models.dropout import Dropout


class _KerasClassifier(LayeredClassifier):
    def __init__(self, features: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__(features, head)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


class LargerModel(_KerasClassifier):
    """Conv 30 (5x5), pool, conv 15 (3x3), pool, dropout 0.2, dense 128, dense 50, softmax 2."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        features = nn.Sequential(
            nn.Conv2d(shape[2], 30, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(30, 15, 3), nn.ReLU(),
        )  # fmt: skip
        pooled = [nn.MaxPool2d(2), Dropout(0.2), nn.Flatten()]
        size = flat_features(nn.Sequential(*features, *pooled), shape)
        dense = [nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 50), nn.ReLU(), nn.Linear(50, 2)]
        super().__init__(features, nn.Sequential(*pooled, *dense))


class CbisDdsm(_KerasClassifier):
    """Conv 32 (3x3), pool, conv 64 (3x3), pool, dense 64, dropout 0.3, sigmoid."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        features = nn.Sequential(
            nn.Conv2d(shape[2], 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(),
        )  # fmt: skip
        pooled = [nn.MaxPool2d(2), nn.Flatten()]
        size = flat_features(nn.Sequential(*features, *pooled), shape)
        dense = [nn.Linear(size, 64), nn.ReLU(), Dropout(0.3), nn.Linear(64, 1)]
        super().__init__(features, nn.Sequential(*pooled, *dense))


class Cnn50(_KerasClassifier):
    """Three blocks of convolution (32, 64, 128; 3x3), ReLU, dropout 0.25, pool; dense 128; sigmoid."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        features = nn.Sequential(
            nn.Conv2d(shape[2], 32, 3), nn.ReLU(), Dropout(0.25), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(), Dropout(0.25), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3), nn.ReLU(),
        )  # fmt: skip
        pooled = [Dropout(0.25), nn.MaxPool2d(2), nn.Flatten()]
        size = flat_features(nn.Sequential(*features, *pooled), shape)
        super().__init__(features, nn.Sequential(*pooled, nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 1)))


class Cnn3Conv(_KerasClassifier):
    """Three convolutions (32, 64, 128; 3x3) with pooling, dense 128, sigmoid."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        features = nn.Sequential(
            nn.Conv2d(shape[2], 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3), nn.ReLU(),
        )  # fmt: skip
        pooled = [nn.MaxPool2d(2), nn.Flatten()]
        size = flat_features(nn.Sequential(*features, *pooled), shape)
        super().__init__(features, nn.Sequential(*pooled, nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 1)))


class CancerNet(_KerasClassifier):
    """Separable convolutions 32 / 64 64 / 128 128 128 with ReLU and batch norm, pool and dropout 0.25 after
    each group, dense 256 with batch norm and dropout 0.5, softmax 2.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        features = nn.Sequential(
            *_separable(shape[2], 32), nn.MaxPool2d(2), Dropout(0.25),
            *_separable(32, 64), *_separable(64, 64), nn.MaxPool2d(2), Dropout(0.25),
            *_separable(64, 128), *_separable(128, 128), *_separable(128, 128),
        )  # fmt: skip
        pooled = [nn.MaxPool2d(2), Dropout(0.25), nn.Flatten()]
        size = flat_features(nn.Sequential(*features, *pooled), shape)
        dense = [nn.Linear(size, 256), nn.ReLU(), nn.BatchNorm1d(256, eps=1e-3, momentum=0.01), Dropout(0.5)]
        super().__init__(features, nn.Sequential(*pooled, *dense, nn.Linear(256, 2)))


def _separable(inputs: int, outputs: int) -> list[nn.Module]:
    # torch's momentum is one minus that of Keras.
    return [
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1),
        nn.ReLU(),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
    ]
