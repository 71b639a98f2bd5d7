"""One image through a network, watched: which layers and operations it passes, in what order, and who takes what.

Hooks tell where in the network the pass is, torch's dispatcher what is computed there. What stands inside a layer (a
module without parts) is that layer; what a module computes between its parts is a step of its own where it matters:
activations, pools, products, and where two branches meet. Which step a tensor comes from is known by its memory, so
views and work in place need no special case. Words for all of this are in `describe.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

MERGES = frozenset({"add", "sub", "mul", "div", "cat", "stack", "maximum", "minimum"})
"""Operations that are steps where what they take comes from different ones."""
SHOWN = frozenset({
    "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "sigmoid", "hardsigmoid", "hardswish", "hardtanh",
    "tanh", "softplus", "_softmax", "max_pool1d", "max_pool2d_with_indices", "avg_pool1d", "avg_pool2d",
    "_adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax", "upsample_bilinear2d", "upsample_nearest2d",
    "upsample_bicubic2d", "native_batch_norm", "_native_batch_norm_legit_no_training", "_batch_norm_impl_index",
    "batch_norm", "cudnn_batch_norm", "native_layer_norm", "native_group_norm",
})  # fmt: skip
"""Operations that are always steps, unless no image goes into them."""


@dataclass(slots=True)
class Step:
    """A layer, or an operation between layers, as it was passed.

    `path` is the layer's name, or that of the module that computes. `inputs` are indices of steps. `shape` is the
    output's, with the batch. `parameters` are those that no earlier step has.
    """

    path: str
    what: nn.Module | Operation
    inputs: set[int]
    shape: tuple[int, ...] = ()
    parameters: int = 0
    multiply_adds: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """A call of torch's library: its name without a trailing underscore, and its arguments, tensors as their shapes."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(slots=True)
class _Call:
    """A module that is being passed; `step` where it is a layer."""

    path: str
    step: Step | None = None
    taken: frozenset[int] = frozenset()
    changed: set[int] = field(default_factory=set)


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves __init_subclass__ untyped
    """`steps` of one pass; the first is the image. `output` are the steps that the result comes from."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        self._calls = [_Call("")]
        self._origins: dict[int, frozenset[int]] = {}
        self._waiting = {_memory(parameter): parameter.numel() for parameter in model.parameters()}
        self.steps: list[Step] = []
        self.output: frozenset[int] = frozenset()

    @property
    def unused(self) -> int:
        """Parameters that the image did not pass."""
        return sum(self._waiting.values())

    def run(self, image: Tensor) -> Trace:
        """Passes the image (1, C, H, W); the model is in evaluation mode."""
        self.steps.append(Step("input", Operation("input", ()), set(), tuple(image.shape)))
        self._origins[_memory(image)] = frozenset({0})
        fast = torch.backends.mha.get_fastpath_enabled()
        with ExitStack() as stack:
            stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
            torch.backends.mha.set_fastpath_enabled(False)  # one operation would hide an attention's layers
            for name, module in self._model.named_modules():
                stack.callback(module.register_forward_pre_hook(self._entering(name), with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(self._leaving).remove)
            stack.enter_context(torch.no_grad())
            stack.enter_context(self)
            logits = self._model(image)
            self.output = self._origins.get(_memory(logits), frozenset())
        return self

    def _entering(self, name: str) -> Any:
        def enter(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            call = _Call(name)
            if next(module.children(), None) is None:
                given = _tensors((arguments, named))
                call.step = Step(name, module, set(self._sources(given)))
                call.taken = frozenset(map(_memory, given))
            self._calls.append(call)

        return enter

    def _leaving(self, module: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
        call = self._calls.pop()
        if call.step is None:
            return output
        passed_on = isinstance(output, Tensor) and _memory(output) in call.taken - call.changed
        if passed_on and not _is_shown(module, call.step):
            return output
        call.step.parameters += self._claim(parameter for parameter in module.parameters())
        number = self._add(call.step, output)
        for memory in call.changed:
            self._origins[memory] = number
        if passed_on:  # a copy, so that whoever takes the original is not taken for its successor
            output = output.clone()
        for tensor in _tensors(output):
            self._origins[_memory(tensor)] = number
        return output

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self._note(func.overloadpacket.__name__, args, _tensors((args, kwargs or {})), output)
        return output

    def _note(self, name: str, arguments: tuple[Any, ...], taken: list[Tensor], output: Any) -> None:
        name, call = name.removesuffix("_"), self._calls[-1]
        given, memories = _tensors(output), {_memory(tensor) for tensor in taken}
        products = multiply_adds(name, arguments, output)
        if call.step is not None:
            call.step.multiply_adds += products
            call.step.parameters += self._claim(taken)
            for tensor in given:
                if _memory(tensor) not in memories:
                    self._origins[_memory(tensor)] = frozenset()
                elif tensor is taken[0] and name != "lift_fresh":
                    call.changed.add(_memory(tensor))
            return
        sources = self._sources(taken)
        is_view = all(_memory(tensor) in memories for tensor in given) and not any(each is taken[0] for each in given)
        if name == "lift_fresh" or not given:  # a constant, whose memory another tensor may have had before
            sources, is_view = frozenset(), True
        new = 0 if is_view else self._claim(taken)
        different = {self._origins[_memory(tensor)] for tensor in taken if self._origins.get(_memory(tensor))}
        if products or new or (sources and name in SHOWN) or (name in MERGES and len(different) > 1):
            step = Step(call.path, Operation(name, _shapes(arguments)), set(sources), (), new, products)
            sources = self._add(step, output)
        for tensor in given:
            self._origins[_memory(tensor)] = sources

    def _add(self, step: Step, output: Any) -> frozenset[int]:
        first = next(iter(_tensors(output)), None)
        step.shape = () if first is None else tuple(first.shape)
        self.steps.append(step)
        return frozenset({len(self.steps) - 1})

    def _sources(self, tensors: Iterable[Tensor]) -> frozenset[int]:
        return frozenset().union(*(self._origins.get(_memory(tensor), frozenset()) for tensor in tensors))

    def _claim(self, tensors: Iterable[Tensor]) -> int:
        """How many parameters these are that no earlier step has."""
        return sum(self._waiting.pop(_memory(tensor), 0) for tensor in tensors)


def multiply_adds(name: str, arguments: tuple[Any, ...], output: Any) -> int:
    """Multiplications, each with its addition, of a convolution or a matrix product; 0 of any other operation."""
    if name in ("convolution", "_convolution"):
        image, kernel, transposed = arguments[0], arguments[1], arguments[6]
        places = image if transposed else output  # one that is transposed spreads each place, others gather for each
        return int(places.shape[0] * prod(places.shape[2:]) * kernel.numel())
    if name in ("mm", "bmm", "addmm", "baddbmm"):
        first, second = arguments[-2:] if name in ("mm", "bmm") else arguments[1:3]
        return int(first.numel() * second.shape[-1])
    if name in ("mv", "dot", "addmv"):
        return int(arguments[1 if name == "addmv" else 0].numel())
    if name.startswith("_scaled_dot_product"):
        query, key, value = arguments[:3]
        return int(query.numel() // query.shape[-1] * key.shape[-2] * (query.shape[-1] + value.shape[-1]))
    return 0


def _is_shown(module: nn.Module, step: Step) -> bool:
    """A layer that hands on what it took is a step where it changes the shape, or drops values in training."""
    if isinstance(module, nn.Identity):
        return False
    rate = getattr(module, "p", getattr(module, "drop_prob", 0))
    return bool(rate) or isinstance(module, nn.Flatten | nn.Unflatten) or bool(step.parameters)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _shapes(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    shapes: tuple[Any, ...] = tree_map(lambda each: tuple(each.shape) if isinstance(each, Tensor) else each, arguments)
    return shapes


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
