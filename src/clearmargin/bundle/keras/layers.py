"""Every layer that is known, by the name of its class in any Keras: READERS.

A reader adds the nodes of one call to the graph, says which arrays the layer has in the file, and gives the name of its
output. A layer that is not in the table is refused by name. What a layer does in training alone is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

from clearmargin.bundle.keras.build import Array, Call, as_mapping
from clearmargin.bundle.keras.configs import Layer
from clearmargin.errors import one_line
from clearmargin.graph import (
    Activation,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    Dropout,
    Elu,
    Flatten,
    GlobalPool,
    LayerNorm,
    Merge,
    Pad,
    Permute,
    Pool,
    PRelu,
    Relu,
    Rescale,
    Reshape,
    Resize,
    Softmax,
)

_FUNCTIONS = set(get_args(Activation.model_fields["function"].annotation))
_FUNCTION_NAMES = {"swish": "silu", "hard_swish": "hard_silu"}


def _conv2d(call: Call) -> str:
    height, width = _kernel(call)
    filters, groups = call.integer("filters", "nb_filter"), call.integer("groups", default=1)
    channels, bias = _channels(call), call.flag("use_bias", "bias", default=True)
    weights = call.builder.weights(call.place)
    name = call.add(
        Conv,
        weights=weights,
        filters=filters,
        kernel=(height, width),
        strides=call.pair("strides", "subsample", default=1),
        padding=call.padding(),
        dilation=call.pair("dilation_rate", "atrous_rate", default=1),
        groups=groups,
        bias=bias,
    )
    kernel = Array("kernel", (height, width, channels // groups, filters), f"{weights}.weight", "conv")
    call.builder.expect(call.place, [kernel, *_bias(weights, filters, bias)])
    return _activate(call, name)


def _depthwise(call: Call) -> str:
    name, arrays = _depth(call, "depthwise_kernel", bias=call.flag("use_bias", "bias", default=True))
    call.builder.expect(call.place, arrays)
    return _activate(call, name)


def _separable(call: Call) -> str:
    inner, arrays = _depth(call, "depthwise_kernel", bias=False, part="depthwise")
    filters, bias = call.integer("filters", "nb_filter"), call.flag("use_bias", "bias", default=True)
    weights = call.builder.weights(call.place, "pointwise")
    name = call.add(Conv, inputs=[inner], part="pointwise", weights=weights, filters=filters, kernel=(1, 1), bias=bias)
    shape = (1, 1, call.builder.shapes[inner][2], filters)
    pointwise = Array("pointwise_kernel", shape, f"{weights}.weight", "conv")
    call.builder.expect(call.place, [*arrays, pointwise, *_bias(weights, filters, bias)])
    return _activate(call, name)


def _depth(call: Call, array: str, *, bias: bool, part: str = "") -> tuple[str, list[Array]]:
    height, width = _kernel(call)
    channels, multiplier = _channels(call), call.integer("depth_multiplier", default=1)
    weights = call.builder.weights(call.place, part)
    name = call.add(
        Conv,
        part=part,
        weights=weights,
        filters=channels * multiplier,
        kernel=(height, width),
        strides=call.pair("strides", "subsample", default=1),
        padding=call.padding(),
        dilation=call.pair("dilation_rate", default=1),
        groups=channels,
        bias=bias,
    )
    kernel = Array(array, (height, width, channels, multiplier), f"{weights}.weight", "depthwise")
    return name, [kernel, *_bias(weights, channels * multiplier, bias)]


def _conv2d_transpose(call: Call) -> str:
    if call.pair("dilation_rate", default=1) != (1, 1) or call.get("output_padding") is not None:
        raise call.error("has a dilation or an output_padding, which is not supported")
    height, width = _kernel(call)
    filters, channels, bias = call.integer("filters"), _channels(call), call.flag("use_bias", default=True)
    weights = call.builder.weights(call.place)
    name = call.add(
        ConvTranspose,
        weights=weights,
        filters=filters,
        kernel=(height, width),
        strides=call.pair("strides", default=1),
        padding=call.padding(),
        bias=bias,
    )
    kernel = Array("kernel", (height, width, filters, channels), f"{weights}.weight", "transposed")
    call.builder.expect(call.place, [kernel, *_bias(weights, filters, bias)])
    return _activate(call, name)


def _dense(call: Call) -> str:
    call.need_last()
    units, bias = call.integer("units", "output_dim"), call.flag("use_bias", "bias", default=True)
    inputs = call.shape[-1]
    weights = call.builder.weights(call.place)
    name = call.add(Dense, weights=weights, units=units, bias=bias)
    kernel = Array("kernel", (inputs, units), f"{weights}.weight", "dense")
    call.builder.expect(call.place, [kernel, *_bias(weights, units, bias)])
    return _activate(call, name)


def _batch_norm(call: Call) -> str:
    if call.integer("mode", default=0) != 0:
        raise call.error("normalises by the batch at hand (mode 1 or 2), so an image would count for another")
    size = call.shape[-1]
    if call.axis(call.get("axis", default=-1)) != len(call.shape) - 1:
        raise call.error("normalises another axis than the channels, which is not supported")
    weights = call.builder.weights(call.place)
    name = call.add(BatchNorm, weights=weights, epsilon=call.number("epsilon", default=1e-3))
    arrays = _scale_and_shift(call, weights, size)
    arrays.append(Array("moving_mean", (size,), f"{weights}.running_mean", trainable=False))
    arrays.append(Array("moving_variance", (size,), f"{weights}.running_var", trainable=False))
    call.builder.expect(call.place, arrays)
    return name


def _layer_norm(call: Call) -> str:
    call.need_last()
    if call.axis(call.get("axis", default=-1)) != len(call.shape) - 1 or call.flag("rms_scaling", default=False):
        raise call.error("normalises more than the last axis, or by another rule, which is not supported")
    weights = call.builder.weights(call.place)
    name = call.add(LayerNorm, weights=weights, epsilon=call.number("epsilon", default=1e-3))
    call.builder.expect(call.place, _scale_and_shift(call, weights, call.shape[-1]))
    return name


def _scale_and_shift(call: Call, weights: str, size: int) -> list[Array]:
    """Gamma and beta, as far as the layer has them; what it has not is 1 and 0."""
    arrays = []
    for flag, array, parameter, neutral in (("scale", "gamma", "weight", 1.0), ("center", "beta", "bias", 0.0)):
        key = f"{weights}.{parameter}"
        if call.flag(flag, default=True):
            arrays.append(Array(array, (size,), key))
        else:
            call.builder.constants[key] = ((size,), neutral)
    return arrays


def _normalization(call: Call) -> str:
    call.need_last()
    if call.flag("invert", default=False):
        raise call.error("turns a normalisation round, which is not supported")
    axis, size = call.get("axis", default=-1), call.shape[-1]
    mean, variance = (_numbers(call, name) for name in ("mean", "variance"))
    if mean is not None and variance is not None:
        spread = [max(math.sqrt(max(value, 0.0)), 1e-7) for value in variance]
        offset = [-a / b for a, b in zip(mean * (len(spread) // len(mean)), spread, strict=True)]
        return call.add(Rescale, scale=tuple(1 / value for value in spread), offset=tuple(offset))
    if call.axis(axis) != len(call.shape) - 1:
        raise call.error("normalises another axis than the channels, which is not supported")
    weights = call.builder.weights(call.place)
    name = call.add(BatchNorm, weights=weights, epsilon=0.0)
    call.builder.constants |= {f"{weights}.weight": ((size,), 1.0), f"{weights}.bias": ((size,), 0.0)}
    statistics = (("mean", "vector", "running_mean"), ("variance", "variance", "running_var"))
    call.builder.expect(
        call.place,
        [
            *(Array(n, (size,), f"{weights}.{key}", how, trainable=False, epsilon=1e-7) for n, how, key in statistics),  # type: ignore[arg-type]
            Array("count", (), None, trainable=False),
        ],
    )
    return name


def _rescaling(call: Call) -> str:
    scale, offset = (_numbers(call, name) for name in ("scale", "offset"))
    if max(len(scale or ()), len(offset or ())) > 1:
        call.need_last()
    return call.add(Rescale, scale=tuple(scale or (1.0,)), offset=tuple(offset or (0.0,)))


def _numbers(call: Call, name: str) -> list[float] | None:
    """One number or a list of them, however deep it lies in lists of one."""
    value: Any = call.get(name)
    if value is None:
        return None
    if isinstance(value, dict):  # an array of NumPy, as Keras 3 describes it
        value = as_mapping(value.get("config")).get("value", value.get("value"))
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, int | float) and math.isfinite(each) for each in values):
        raise call.error(f"has no numbers as {name}")
    return [float(each) for each in values]


def _pool(mode: str) -> Callable[[Call], str]:
    def read(call: Call) -> str:
        size = call.pair("pool_size", default=2)
        strides = call.pair("strides", default=size)
        return call.add(Pool, mode=mode, size=size, strides=strides, padding=call.padding())

    return read


def _global_pool(mode: str) -> Callable[[Call], str]:
    return lambda call: call.add(GlobalPool, mode=mode, keepdims=call.flag("keepdims", default=False))


def _margins(kind: type[Pad | Crop], field: str) -> Callable[[Call], str]:
    def read(call: Call) -> str:
        value = call.get(field, default=1 if kind is Pad else 0)
        if isinstance(value, int):
            value = [value, value]
        if isinstance(value, dict):  # Keras 1: top_pad and so on
            value = [
                [value.get(f"{first}_pad", 0), value.get(f"{last}_pad", 0)]
                for first, last in (("top", "bottom"), ("left", "right"))
            ]
        if not isinstance(value, list | tuple):
            raise call.error(f"has no margins as {field}")
        sides = [side if isinstance(side, list | tuple) else [side, side] for side in value]
        if len(sides) == 4:
            sides = [[value[0], value[1]], [value[2], value[3]]]
        flat = [each for side in sides for each in side]
        if len(flat) != 4 or not all(type(each) is int for each in flat):
            raise call.error(f"has no four margins as {field}")
        return call.add(kind, margins=tuple(flat))

    return read


def _up_sampling(call: Call) -> str:
    by = call.pair("size", default=2)
    height, width, _ = (*call.shape, 0, 0)[:3]
    return call.add(Resize, size=(height * by[0], width * by[1]), interpolation=_interpolation(call, "nearest"))


def _resizing(call: Call) -> str:
    if any(call.flag(name, default=False) for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias")):
        raise call.error("crops, pads or smooths, which is not supported")
    size = (call.integer("height"), call.integer("width"))
    return call.add(Resize, size=size, interpolation=_interpolation(call, "bilinear"))


def _interpolation(call: Call, default: str) -> str:
    name = call.text("interpolation", default=default)
    if name not in ("nearest", "bilinear"):
        raise call.error(f"enlarges by '{one_line(name)[:20]}', which is not supported (nearest and bilinear are)")
    if name == "bilinear" and not call.builder.half_pixel:
        raise call.error("enlarges bilinearly on the grid of Keras before 2.3, which is not supported")
    return name


def _relu(call: Call) -> str:
    top = call.get("max_value")
    return call.add(
        Relu,
        max_value=None if top is None else call.number("max_value", default=0.0),
        negative_slope=call.number("negative_slope", default=0.0),
        threshold=call.number("threshold", default=0.0),
    )


def _leaky_relu(call: Call) -> str:
    return call.add(Relu, negative_slope=call.number("negative_slope", "alpha", default=0.3))


def _thresholded_relu(call: Call) -> str:
    return call.add(Relu, threshold=call.number("theta", default=1.0))


def _elu(call: Call) -> str:
    return call.add(Elu, alpha=call.number("alpha", default=1.0))


def _prelu(call: Call) -> str:
    call.need_last()
    shared = call.get("shared_axes", default=[])
    axes = {call.axis(axis) for axis in (shared if isinstance(shared, list) else [shared])}
    shape = tuple(1 if axis in axes else side for axis, side in enumerate(call.shape))
    weights = call.builder.weights(call.place)
    name = call.add(PRelu, weights=weights, shape=shape)
    call.builder.expect(call.place, [Array("alpha", shape, f"{weights}.weight", "slopes")])
    return name


def _softmax(call: Call) -> str:
    if call.axis(call.get("axis", default=-1)) != len(call.shape) - 1:
        raise call.error("is over another axis than the channels, which is not supported")
    return call.add(Softmax)


def _activation(call: Call) -> str:
    return _activate(call, _identity(call), part="")


def _activate(call: Call, name: str, part: str = "activation") -> str:
    """The activation that a layer's config names, after the node `name`."""
    given = call.get("activation", default="linear")
    if isinstance(given, dict):
        kind, config = given.get("class_name"), given.get("config")
        if kind not in _ACTIVATION_LAYERS:
            raise call.error(f"has the activation '{one_line(str(kind))[:60]}', which is not known")
        layer = Layer(str(kind), call.layer.name, as_mapping(config))
        place = (*call.place[:-1], f"{call.place[-1]}_{part}") if part else call.place
        return READERS[str(kind)](Call(call.builder, layer, place, (name,)))
    if not isinstance(given, str):
        raise call.error("has an activation that is no name")
    given = _FUNCTION_NAMES.get(given, given)
    if given == "hard_sigmoid" and call.builder.keras < 3:
        inner = call.add(Rescale, inputs=[name], part=f"{part}_scale", scale=(0.2,), offset=(0.5,))
        return call.add(Relu, inputs=[inner], part=part, max_value=1.0)
    if given == "softmax":
        if len(call.builder.shapes[name]) == 3:
            call.need_last()
        return call.add(Softmax, inputs=[name], part=part)
    if given in _FUNCTIONS:
        return call.add(Activation, inputs=[name], part=part, function=given)
    match given:
        case "linear":
            return name
        case "relu":
            return call.add(Relu, inputs=[name], part=part)
        case "leaky_relu":
            return call.add(Relu, inputs=[name], part=part, negative_slope=0.2)
        case "elu":
            return call.add(Elu, inputs=[name], part=part)
    raise call.error(f"has the activation '{one_line(given)[:60]}', which is not known")


def _identity(call: Call) -> str:
    if len(call.inputs) != 1:
        raise call.error(f"takes one input, and has {len(call.inputs)}")
    return call.inputs[0]


def _dropout(call: Call) -> str:
    return call.add(Dropout, rate=min(call.number("rate", "p", default=0.5), 0.999))


def _flatten(call: Call) -> str:
    # Keras turns a map round before it flattens it where the layer itself says that channels come first.
    turned = call.get("data_format") == "channels_first" and call.builder.keras > 1
    return call.add(Flatten, order="last" if turned else call.builder.order)


def _reshape(call: Call) -> str:
    target = call.get("target_shape", "dims")
    if not isinstance(target, list | tuple) or not all(type(side) is int for side in target):
        raise call.error("has no whole numbers as target_shape")
    sides, total = list(target), math.prod(call.shape)
    if sides.count(-1) == 1:
        known = math.prod(side for side in sides if side != -1)
        sides[sides.index(-1)] = total // known if known > 0 else 0
    if call.builder.order == "first" and len(sides) == 3:
        sides = [sides[1], sides[2], sides[0]]
    return call.add(Reshape, target=tuple(sides), order=call.builder.order)


def _permute(call: Call) -> str:
    call.need_last()
    order = call.get("dims")
    if not isinstance(order, list | tuple) or not all(type(axis) is int for axis in order):
        raise call.error("has no whole numbers as dims")
    return call.add(Permute, order=tuple(axis - 1 for axis in order))


def _merge(operation: str) -> Callable[[Call], str]:
    return lambda call: call.add(Merge, operation=operation)


def _concatenate(call: Call) -> str:
    return call.add(Concat, axis=call.axis(call.get("axis", "concat_axis", default=-1)))


def _legacy_merge(call: Call) -> str:
    mode = call.text("mode", default="sum")
    if mode in ("concat", "concatenate"):
        return _concatenate(call)
    operations = {"sum": "add", "mul": "multiply", "ave": "average", "max": "maximum"}
    if mode not in operations:
        raise call.error(f"merges by '{one_line(mode)[:20]}', which is not supported")
    return call.add(Merge, operation=operations[mode])


def _channels(call: Call) -> int:
    shape = call.shape
    if len(shape) != 3:
        raise call.error(f"needs a map, and gets the shape {shape}")
    return shape[2]


def _kernel(call: Call) -> tuple[int, int]:
    if call.get("kernel_size") is not None or call.get("nb_row") is None:
        return call.pair("kernel_size")
    return call.integer("nb_row"), call.integer("nb_col")


def _bias(weights: str, size: int, wanted: bool) -> list[Array]:
    return [Array("bias", (size,), f"{weights}.bias")] if wanted else []


_ACTIVATION_LAYERS = ("ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax", "ThresholdedReLU")
_IDENTITIES = (
    "ActivityRegularization", "GaussianNoise", "GaussianDropout", "AlphaDropout", "Identity", "Masking",
    "RandomBrightness", "RandomColorJitter", "RandomColorDegeneration", "RandomContrast", "RandomErasing", "RandomFlip",
    "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization",
    "RandomRotation", "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom",
    "RandAugment", "AugMix", "CutMix", "MixUp",
)  # fmt: skip

READERS: dict[str, Callable[[Call], str]] = {
    "Conv2D": _conv2d,
    "Convolution2D": _conv2d,
    "AtrousConvolution2D": _conv2d,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "SeparableConvolution2D": _separable,
    "Conv2DTranspose": _conv2d_transpose,
    "Convolution2DTranspose": _conv2d_transpose,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "BatchNormalizationV1": _batch_norm,
    "BatchNormalizationV2": _batch_norm,
    "SyncBatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "Resizing": _resizing,
    "MaxPooling2D": _pool("max"),
    "MaxPool2D": _pool("max"),
    "AveragePooling2D": _pool("average"),
    "AvgPool2D": _pool("average"),
    "GlobalMaxPooling2D": _global_pool("max"),
    "GlobalMaxPool2D": _global_pool("max"),
    "GlobalAveragePooling2D": _global_pool("average"),
    "GlobalAvgPool2D": _global_pool("average"),
    "ZeroPadding2D": _margins(Pad, "padding"),
    "Cropping2D": _margins(Crop, "cropping"),
    "UpSampling2D": _up_sampling,
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ThresholdedReLU": _thresholded_relu,
    "PReLU": _prelu,
    "ELU": _elu,
    "Softmax": _softmax,
    "Dropout": _dropout,
    "SpatialDropout2D": _dropout,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "Add": _merge("add"),
    "Subtract": _merge("subtract"),
    "Multiply": _merge("multiply"),
    "Average": _merge("average"),
    "Maximum": _merge("maximum"),
    "Minimum": _merge("minimum"),
    "Concatenate": _concatenate,
    "Merge": _legacy_merge,
    **dict.fromkeys(_IDENTITIES, _identity),
}


def read_layer(call: Call) -> str:
    """Adds the nodes of one call; gives the name of its output.

    Raises:
        DataError: the layer is not known, or is used in a way that is not.
    """
    reader = READERS.get(call.layer.kind)
    if reader is None:
        raise call.error("is not one that can be imported; docs/keras.md lists those that can")
    return reader(call)
