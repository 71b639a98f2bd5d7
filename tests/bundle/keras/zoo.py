"""Models of the real Keras that together have every kind of layer; each is a function of the module."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

SHAPE = (13, 11, 3)
FUNCTIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "hard_sigmoid", "tanh", "softmax",
    "softplus", "softsign", "exponential", "linear", "mish", "hard_silu",
)  # fmt: skip


def chain(keras: Any, *layers: Any, units: int = 1, shape: tuple[int, int, int] = SHAPE) -> Any:
    """A sequential model that ends in a sigmoid, or in a softmax for two units."""
    last = keras.layers.Dense(units, activation="sigmoid" if units == 1 else "softmax")
    flat = [] if layers and isinstance(layers[-1], keras.layers.GlobalAveragePooling2D) else [keras.layers.Flatten()]
    return keras.Sequential([keras.Input(shape), *layers, *flat, last])


def convolutions(keras: Any) -> Any:
    layers = keras.layers
    return chain(
        keras,
        layers.Conv2D(4, (3, 2), strides=(2, 1), padding="same", activation="relu"),
        layers.Conv2D(6, 3, dilation_rate=2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.Conv2D(4, 2, groups=2, activation="tanh"),
        layers.MaxPooling2D(3, 2, padding="same"),
        units=2,
    )


def separable(keras: Any) -> Any:
    layers = keras.layers
    return chain(
        keras,
        layers.SeparableConv2D(5, 3, padding="same", depth_multiplier=2, activation="elu"),
        layers.AveragePooling2D(3, 2, padding="same"),
        layers.DepthwiseConv2D(2, depth_multiplier=2, padding="same", use_bias=False),
        layers.LayerNormalization(),
        layers.GlobalMaxPooling2D(keepdims=True),
    )


def margins(keras: Any) -> Any:
    layers = keras.layers
    return chain(
        keras,
        layers.ZeroPadding2D(((1, 2), (0, 3))),
        layers.Cropping2D(((2, 0), (1, 1))),
        layers.UpSampling2D((2, 3), interpolation="bilinear"),
        layers.UpSampling2D(2),
        layers.Conv2D(4, 3, strides=3),
        layers.Reshape((-1, 8)),
        layers.Dense(3, activation="gelu"),
        layers.Permute((2, 1)),
        layers.BatchNormalization(),
    )


def scaled(keras: Any) -> Any:
    layers = keras.layers
    return chain(
        keras,
        layers.Rescaling([2.0, 1.0, 0.5], [-1.0, 0.0, 0.1]),
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 0.5, 2.0]),
        layers.Normalization(),
        layers.Resizing(9, 20),
        layers.RandomFlip(),
        layers.RandomRotation(0.2),
        layers.Conv2D(4, 3),
        layers.GlobalAveragePooling2D(),
    )


def transposed(keras: Any) -> Any:
    layers = keras.layers
    return chain(
        keras,
        layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2DTranspose(3, 2, strides=3),
        layers.MaxPooling2D(8),
    )


def rectified(keras: Any) -> Any:
    layers = keras.layers
    return chain(
        keras,
        layers.Conv2D(4, 3),
        layers.ReLU(max_value=0.5, negative_slope=0.1, threshold=0.2),
        layers.LeakyReLU(),
        layers.ELU(alpha=0.7),
        layers.PReLU(),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Softmax(),
        layers.GaussianNoise(0.1),
        layers.GaussianDropout(0.1),
        layers.AlphaDropout(0.1),
        layers.SpatialDropout2D(0.2),
        layers.ActivityRegularization(),
        layers.Dropout(0.5),
    )


def activations(keras: Any) -> Any:
    layers = keras.layers
    image = keras.Input(SHAPE)
    narrow = layers.Conv2D(3, 3, strides=2)(image)
    branches = [layers.Activation(name)(layers.Conv2D(2, 1, activation=name)(narrow)) for name in FUNCTIONS]
    scaled = layers.BatchNormalization()(layers.Concatenate()(branches))
    return keras.Model(image, layers.Dense(1, activation="sigmoid")(layers.Flatten()(scaled)))


def merged(keras: Any) -> Any:
    layers = keras.layers
    image = keras.Input(SHAPE)
    a, b = (layers.Conv2D(4, 3, padding="same")(image) for _ in range(2))
    both = layers.Multiply()([layers.Maximum()([a, b]), layers.Minimum()([a, b]), layers.Average()([a, b])])
    wide = layers.Concatenate()([both, layers.Subtract()([a, b]), layers.Add()([a, b])])
    squeezed = layers.Dense(12, activation="sigmoid")(layers.GlobalAveragePooling2D()(wide))
    wide = layers.Multiply()([wide, layers.Reshape((1, 1, 12))(squeezed)])
    tall = layers.AveragePooling2D(2)(layers.Concatenate(axis=1)([wide, wide]))
    return keras.Model(image, layers.Dense(2, activation="softmax")(layers.Flatten()(tall)))


def nested(keras: Any) -> Any:
    """A sequential model inside of a functional one inside of another, called twice, beside a shared layer."""
    layers = keras.layers
    image = keras.Input(SHAPE)
    shared = layers.Conv2D(3, 3, padding="same")
    block = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization(), layers.LeakyReLU()],
        name="block",
    )
    inside = keras.Input(SHAPE)
    beside = layers.BatchNormalization(name="beside_norm")(layers.Conv2D(3, 1, name="beside")(inside))
    model = keras.Model(inside, layers.Add()([block(inside), beside]), name="inner")
    hidden = model(model(shared(shared(image))))
    return keras.Model(image, layers.Dense(2, activation="softmax")(layers.Flatten()(hidden)))


def frozen(keras: Any) -> Any:
    """Transfer learning: what does not train comes after what does, in the order of the weights."""
    layers = keras.layers
    base = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(4, 3, name="second"),
        ],
        name="base",
    )
    base.get_layer("first").trainable = False
    return chain(keras, base, layers.Dense(5, activation="relu"))


def wholly_frozen(keras: Any) -> Any:
    model = frozen(keras)
    model.get_layer("base").trainable = False
    return model


def activation_layers(keras: Any) -> Any:
    layers = keras.layers
    return chain(
        keras, layers.Conv2D(3, 3, activation=layers.LeakyReLU(0.05)), layers.Conv2D(2, 3, activation=layers.ReLU(2.0))
    )


MODELS: dict[str, Callable[[Any], Any]] = {
    function.__name__: function
    for function in (
        convolutions, separable, margins, scaled, transposed, rectified, activations, merged, nested, frozen,
        wholly_frozen, activation_layers,
    )
}  # fmt: skip


def random_chain(keras: Any, seed: int) -> Any:
    """A chain of six layers of any kinds, with any of their options, on an image of any size; the same for one seed."""
    draw = random.Random(seed)
    layers = keras.layers
    shape = (draw.randint(9, 16), draw.randint(9, 16), draw.choice((1, 3)))

    def padding() -> str:
        return draw.choice(("same", "valid"))

    def window() -> tuple[int, int]:
        return draw.randint(1, 3), draw.randint(1, 3)

    def separable() -> Any:
        stride, bias = draw.randint(1, 2), draw.random() < 0.5
        return layers.SeparableConv2D(4, window(), strides=stride, padding=padding(), use_bias=bias)

    choices: list[Callable[[], Any]] = [
        lambda: layers.Conv2D(draw.randint(1, 5), window(), strides=window(), padding=padding()),
        lambda: layers.Conv2D(4, window(), dilation_rate=draw.randint(1, 2), padding=padding(), activation="tanh"),
        separable,
        lambda: layers.DepthwiseConv2D(window(), padding=padding(), depth_multiplier=draw.randint(1, 3)),
        lambda: layers.MaxPooling2D(window(), strides=window(), padding=padding()),
        lambda: layers.AveragePooling2D(window(), strides=window(), padding=padding()),
        lambda: layers.BatchNormalization(center=draw.random() < 0.5, scale=draw.random() < 0.5),
        lambda: layers.Activation(draw.choice(FUNCTIONS)),
        lambda: layers.ZeroPadding2D((window(), window())),
        lambda: layers.UpSampling2D(window(), interpolation=draw.choice(("nearest", "bilinear"))),
        lambda: layers.Dense(3, activation=draw.choice(FUNCTIONS)),
        layers.LayerNormalization,
    ]
    image = keras.Input(shape)
    hidden = image
    for _ in range(6):
        layer = draw.choice(choices)()
        with suppress(ValueError):  # too little is left of the map for this one
            if min(layer.compute_output_shape(tuple(hidden.shape))[1:]) >= 1:
                hidden = layer(hidden)
    flat = draw.choice((layers.Flatten, layers.GlobalAveragePooling2D))()(hidden)
    units, activation = draw.choice(((1, "sigmoid"), (2, "softmax")))
    return keras.Model(image, layers.Dense(units, activation=activation)(flat))
