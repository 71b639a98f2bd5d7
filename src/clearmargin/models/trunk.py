"""What every backbone's trunk is: a network from normalised RGB to its last feature map, and where its weights are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from torch import Tensor, nn

from clearmargin.errors import DataError


class Trunk(nn.Module, ABC):
    """(B, 3, H, W), normalised by `mean` and `std` of each channel, to (B, width, h, w).

    `fixed_size` is the (height, width) that it takes, None where it takes any.
    """

    width: int
    fixed_size: tuple[int, int] | None = None

    def __init__(self, *, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The last feature map."""

    @abstractmethod
    def stages(self) -> list[list[str]]:
        """The names of its parameters in groups that are unfrozen together, from the image upwards."""

    def is_head(self, name: str) -> bool:  # noqa: ARG002  (here no name is)
        """The value of this name in a file of weights belongs to a classifier that is not used here."""
        return False

    def load(self, weights: dict[str, Tensor], file: str) -> None:
        """Takes over the weights by the names of `wanted`.

        Raises:
            DataError: one is missing, one too many is there, or one has another shape.
        """
        wanted = self.wanted()
        given = {name: tensor for name, tensor in weights.items() if not self.is_head(name)}
        counters = {name for name in wanted if name.endswith("num_batches_tracked")}  # older files are without them
        if missing := sorted(wanted.keys() - given.keys() - counters):
            raise DataError(f"{file}: {_named('misses', missing)}. {_OTHER_MODEL}")
        if unknown := sorted(given.keys() - wanted.keys()):
            raise DataError(f"{file}: has {_named('what the model has not:', unknown)}. {_OTHER_MODEL}")
        for name, tensor in given.items():
            if tensor.shape != wanted[name].shape:
                shapes = f"{tuple(tensor.shape)} where the model has {tuple(wanted[name].shape)}"
                raise DataError(f"{file}: '{name}' has the shape {shapes}. {_OTHER_MODEL}")
            if not bool(tensor.isfinite().all()):
                raise DataError(f"{file}: '{name}' holds values that are no finite numbers. Get the file anew.")
        for name, tensor in given.items():
            wanted[name].data.copy_(tensor)

    def wanted(self) -> dict[str, Tensor]:
        """Every weight and buffer by the name that it has in a file; the tensors are those of the network."""
        return self.state_dict(keep_vars=True)


_OTHER_MODEL = "It is of another model: give the weights of the one that --model names."


def _named(what: str, names: Collection[str]) -> str:
    first = next(iter(names))
    return f"{what} '{first}'" + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")
