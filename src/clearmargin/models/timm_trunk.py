"""Any network of timm as a trunk. The only place that imports timm, and only for a model of the name `timm:NAME`.

What differs between timm's families is settled here: channels last, tokens in the place of a map, class tokens, heads
with layers of their own. A trunk ends where `forward_features` ends; layers that it does not pass are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from clearmargin.errors import ConfigError, DataError, MissingExtra, UsageError, closest
from clearmargin.models.trunk import Trunk

Argument = bool | int | float | str
PREFIX = "timm:"
_TRIAL_PX = 96
_IGNORED = ("num_classes", "pretrained")
"""What a bundle or a hub's configuration may say of the classifier that is not used here."""
_REFUSED = frozenset({
    "cache_dir", "checkpoint_path", "default_cfg", "exportable", "feature_cfg", "feature_cls", "features_only",
    "kwargs_filter", "model_cfg", "model_cls", "model_name", "no_jit", "out_indices", "scriptable", "variant",
})  # fmt: skip
_MAX_ARGUMENTS = 64
_MAX_SIZE = 2**14
_MAX_DEPTH = 512
_WORD = re.compile(r"[A-Za-z0-9_.+-]{0,64}")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class TimmTrunk(Trunk):
    """A network of timm; its features are a map even where it computes tokens.

    Patch tokens are laid out on their grid. Where the network has a class token and is not made to be pooled by a
    mean, that token stands behind each patch token, so that the mean over places is the mean of the patch tokens and
    then the class token, as Virchow's authors pool it. Register tokens are left out.
    """

    def __init__(self, name: str, arguments: Mapping[str, Argument], pretrained: Mapping[str, Any]) -> None:
        network = _create(name, arguments)
        default: dict[str, Any] = {**network.default_cfg, **pretrained}
        super().__init__(mean=_channels(default, "mean", 0), std=_channels(default, "std", 1))
        self.network = network
        classifier = default.get("classifier") or ()
        self._classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        self.fixed_size = _fixed_size(network)
        height, width = self.fixed_size or (_TRIAL_PX, _TRIAL_PX)
        self._channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        self._prefix = int(getattr(network, "num_prefix_tokens", 0) or 0)
        pool = getattr(network, "global_pool", "")
        self._class_token = getattr(network, "cls_token", None) is not None and not str(pool).startswith("avg")
        self._dropped = self._drop_unused(torch.zeros(1, 3, height, width))
        self.width = self._measure(torch.zeros(1, 3, height, width), name)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network.forward_features(x)
        if features.dim() == 3:
            return self._as_map(features)
        return features.permute(0, 3, 1, 2) if self._channels_last else features

    def stages(self) -> list[list[str]]:
        groups: dict[int, list[str]] = {}
        if hasattr(self.network, "group_matcher"):
            from timm.models import group_parameters  # noqa: PLC0415  (an extra)

            groups = group_parameters(self.network, self.network.group_matcher(coarse=True))
        else:  # the few families that timm has not divided: one stage for each part, in their order
            children = [name for name, _ in self.network.named_children()]
            for name, _ in self.network.named_parameters():
                first = name.partition(".")[0]
                groups.setdefault(children.index(first) if first in children else 0, []).append(name)
        return [[f"network.{name}" for name in groups[number]] for number in sorted(groups) if groups[number]]

    def is_head(self, name: str) -> bool:
        if name.partition(".")[0] in self._dropped:
            return True
        return any(name.startswith(f"{classifier}.") for classifier in self._classifiers)

    def wanted(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict(keep_vars=True))

    def _as_map(self, tokens: Tensor) -> Tensor:
        patches = tokens[:, self._prefix :]
        height, width = _grid(self.network, patches.shape[1])
        if self._class_token:
            patches = torch.cat([patches, tokens[:, :1].expand(-1, patches.shape[1], -1)], dim=2)
        places: Tensor = torch.unflatten(patches.transpose(1, 2), 2, (height, width))
        return places

    def _drop_unused(self, example: Tensor) -> frozenset[str]:
        passed: set[str] = set()

        def note(name: str) -> Any:
            return lambda *_: passed.add(name)

        hooks = [
            module.register_forward_hook(note(name.partition(".")[0]))
            for name, module in self.network.named_modules()
            if name
        ]
        self.network.eval()
        with torch.no_grad():
            self.network.forward_features(example)
        for hook in hooks:
            hook.remove()
        unused = {
            name
            for name, child in self.network.named_children()
            if name not in passed and next(child.parameters(), None) is not None
        }
        for name in unused:
            setattr(self.network, name, nn.Identity())
        return frozenset(unused)

    def _measure(self, example: Tensor, name: str) -> int:
        try:
            with torch.no_grad():
                features = self(example)
            if features.dim() == 4 and min(features.shape) > 0:
                return int(features.shape[1])
        except (AttributeError, ValueError):  # a list of maps, or tokens that are no grid
            pass
        raise UsageError(f"the features of '{PREFIX}{name}' are no map of places; choose another model of timm.")


def check_timm_name(name: str) -> None:
    """Passes for a name of timm, without the prefix.

    Raises:
        MissingExtra: timm is not installed, or cannot be imported.
        UsageError: timm has no such model; names the closest.
    """
    timm = import_timm(name)
    if not name or ":" in name or not timm.is_model(name):
        near = closest(name, timm.list_models())
        hint = f"; did you mean '{PREFIX}{near}'?" if near else "."
        raise UsageError(f"there is no model '{PREFIX}{name}' in timm {timm.__version__}{hint}")


def check_arguments(arguments: Mapping[str, Argument]) -> None:
    """Passes for arguments that say how a network is built, and nothing else.

    They may come from the model.json of a stranger. timm's constructor also takes such as fetch weights, open files
    that can run code (`checkpoint_path`), or give something else than a network; and a text could be a path.

    Raises:
        ConfigError: names the argument.
    """
    if len(arguments) > _MAX_ARGUMENTS:
        raise ConfigError(f"model.arguments: {len(arguments):,} of them; {_MAX_ARGUMENTS} at most.")
    for key, value in arguments.items():
        shown = key[:50]
        if not key.isidentifier() or (key not in _IGNORED and (key in _REFUSED or key.startswith("pretrained"))):
            raise ConfigError(f"model.arguments: '{shown}' does not say how a network is built; leave it out.")
        if isinstance(value, str) and not _WORD.fullmatch(value):
            raise ConfigError(f"model.arguments: {shown}: must be a plain word, not a path or an address.")
        most = _MAX_DEPTH if any(part in key for part in ("depth", "layers", "blocks")) else _MAX_SIZE
        if isinstance(value, int | float) and not abs(value) <= most:
            raise ConfigError(f"model.arguments: {shown}: is beyond {most:,}.")


def import_timm(name: str) -> ModuleType:
    """The module timm.

    Raises:
        MissingExtra: it is not installed, or cannot be imported.
    """
    try:
        import timm  # noqa: PLC0415  (an extra)
    except (ImportError, RuntimeError) as error:  # a torchvision for another torch raises RuntimeError
        reason = "" if isinstance(error, ImportError) and error.name == "timm" else str(error)
        raise MissingExtra(f"the model '{PREFIX}{name}'", "timm", reason=reason) from None
    module: ModuleType = timm
    return module


def fetch_weights(name: str) -> Path:
    """The file with timm's own pretrained weights, from its place on the Hugging Face hub or the hub's local cache.

    Only a .safetensors is taken, since other formats can run code.

    Raises:
        MissingExtra: timm or huggingface_hub is not installed.
        UsageError: there is no such model, or timm has no weights for it.
        DataError: they cannot be fetched.
    """
    check_timm_name(name)
    config = import_timm(name).get_pretrained_cfg(name)
    repository = getattr(config, "hf_hub_id", None)
    if not repository:
        raise UsageError(f"timm has no pretrained weights for '{PREFIX}{name}'; give a file with --weights FILE.")
    try:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise MissingExtra("--weights hub", "huggingface_hub", reason=str(error)) from None
    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # the hub's client raises errors of three libraries, without a common root
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"the weights of '{PREFIX}{name}' cannot be fetched from the Hugging Face hub ({text}). "
            "Check the connection, or give a file with --weights FILE."
        ) from None


def parse_arguments(pairs: tuple[str, ...]) -> dict[str, Argument]:
    """The setting model.arguments as a mapping; values are read as TOML, otherwise as text.

    >>> parse_arguments(("init_values=1e-5", "mlp_layer=SwiGLUPacked", "dynamic_img_size=true"))
    {'init_values': 1e-05, 'mlp_layer': 'SwiGLUPacked', 'dynamic_img_size': True}

    Raises:
        ConfigError: not key=value.
    """
    import tomllib  # noqa: PLC0415

    arguments: dict[str, Argument] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip().isidentifier():
            raise ConfigError(f"model.arguments: {pair}: write it as key=value, for example init_values=1e-5.")
        try:
            value = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        arguments[key.strip()] = value if isinstance(value, (bool, int, float, str)) else text.strip()
    return arguments


def _create(name: str, arguments: Mapping[str, Argument]) -> Any:
    check_timm_name(name)
    check_arguments(arguments)
    timm = import_timm(name)
    ready = {key: _layer(key, value) for key, value in arguments.items() if key not in _IGNORED}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **ready)
    except (RuntimeError, TypeError, ValueError, KeyError, AssertionError) as error:
        text = " ".join(str(error).split())[:200]
        raise UsageError(f"timm cannot build '{PREFIX}{name}' ({text}); see model.arguments.") from None


def _layer(key: str, value: Argument) -> object:
    """The class of layer that an argument such as mlp_layer=SwiGLUPacked names; any other value as it is."""
    if not key.endswith("_layer") or not isinstance(value, str):
        return value
    import timm.layers  # noqa: PLC0415

    for place in (timm.layers, nn):
        found = getattr(place, value, None)
        if isinstance(found, partial) or (isinstance(found, type) and issubclass(found, nn.Module)):
            return found
    raise ConfigError(f"model.arguments: there is no layer '{value}' in timm.layers or torch.nn for {key}.")


def _channels(config: Mapping[str, Any], key: str, fallback: int) -> tuple[float, float, float]:
    values = config.get(key) or _IMAGENET[fallback]
    first, second, third = (float(value) for value in (values if len(values) == 3 else [values[0]] * 3))
    return first, second, third


def _fixed_size(network: Any) -> tuple[int, int] | None:
    if not network.default_cfg.get("fixed_input_size"):
        return None
    size = getattr(getattr(network, "patch_embed", None), "img_size", None) or network.default_cfg["input_size"][1:]
    return int(size[0]), int(size[1])


def _grid(network: Any, patches: int) -> tuple[int, int]:
    size = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    if size is not None and size[0] * size[1] == patches:
        return int(size[0]), int(size[1])
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(f"{patches} tokens are no square")
    return side, side
