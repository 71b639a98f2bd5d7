"""The preprocessing spec and its one implementation, used by training, prediction, slides and the web.

The spec travels in the bundle. It says which part of the image is meant, the size, how an image of another
size is fitted, what the values of DICOM files and 16-bit values mean and how values are scaled; there is no
hidden crop. Its integer half (`apply`: any image to
uint8 of one shape) runs here; its last step, (value / 255 - mean) / std, is part of the exported
network, so that whoever runs the ONNX file feeds plain uint8 images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from clearmargin.images.limits import Limits, Pixels, Window
from clearmargin.images.place import Box
from clearmargin.images.read import EncodedImage, read_encoded
from clearmargin.types import Content

if TYPE_CHECKING:
    from clearmargin.settings import ImageSettings  # every setting there is, which a prediction should not wait for

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}
_PADDING_VALUE = {"black": 0, "white": 255}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the network's input lies in an image: a part, maybe mirrored, shrunk into the upper left of the input."""

    size: tuple[int, int]
    """Width and height of the image."""
    box: Box
    """Left, top, width and height of the part that the network sees."""
    mirrored: bool
    """That part is turned round, left to right."""
    filled: tuple[int, int]
    """Width and height that it takes in the input; what is beyond is padding."""


class Preprocessing(BaseModel):
    """How any image becomes the network's input; the fields are those of `config.ImageSettings`.

    >>> spec = Preprocessing(width=4, height=4, padding="white")
    >>> spec.apply(np.zeros((4, 2, 1), np.uint8))[0, :, 0].tolist()
    [0, 0, 255, 255]
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Annotated[int, Field(ge=4, le=2048)]
    height: Annotated[int, Field(ge=4, le=2048)]
    channels: Literal[1, 3] = 3
    fit: Literal["pad", "stretch"] = "pad"
    padding: Literal["mirror", "black", "white"] = "mirror"
    interpolation: Literal["nearest", "bilinear", "area"] = "area"
    region: Literal["whole", "breast"] = "whole"
    """`breast` is the box of the breast in a mammogram, as `breast.find_breast` says; the whole image where none is."""
    orientation: Literal["as_is", "left"] = "as_is"
    """`left` mirrors the mammograms whose breast comes in from the right edge."""
    dicom_window: Window = "stored"
    """Values of DICOM files: through the file's VOI LUT or window, or the `full` range that they can have."""
    bit_depth: Literal["full_range"] = "full_range"
    """16-bit values are divided by 257: the container's range, not the image's, becomes 0 to 255."""
    mean: Annotated[float, Field(ge=0, le=1)] = 0.0
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @classmethod
    def for_display(cls) -> Preprocessing:
        """How images are shown where no bundle says how they are read: whole, in colour, 128 pixels at most."""
        return cls(width=128, height=128)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the network's input."""
        return (self.height, self.width, self.channels)

    def read(self, path: str | Path, limits: Limits = Limits()) -> NDArray[np.uint8]:
        """The image at the path, decoded and applied.

        Raises:
            ImageError: it cannot be used; see `images.read.read_image`.
        """
        return self.decode(read_encoded(path, limits), limits)

    def decode(self, image: EncodedImage, limits: Limits = Limits()) -> NDArray[np.uint8]:
        """The image that was read, decoded and applied.

        Raises:
            ImageError: it cannot be decoded.
        """
        return self.apply(image.decode(limits, window=self.dicom_window).pixels)

    def apply(self, pixels: Pixels) -> NDArray[np.uint8]:
        """The image as uint8 of shape (H, W, C) = `self.shape`.

        Args:
            pixels: uint8 or uint16, (H, W, 1) or (H, W, 3), of any size.
        """
        place = self.place(pixels)
        left, top, width, height = place.box
        if (width, height) != place.size:
            pixels = pixels[top : top + height, left : left + width].copy()
        if place.mirrored:
            pixels = pixels[:, ::-1].copy()
        if pixels.shape == self.shape and pixels.dtype == np.uint8:
            return pixels.astype(np.uint8, copy=False)
        fitted = _to_8_bit(_resize(pixels, place.filled, self.interpolation))
        fitted = _to_channels(fitted, self.channels)
        return self._pad(fitted)

    def place(self, pixels: Pixels) -> Placement:
        """Where the network's input lies in the image.

        >>> Preprocessing(width=4, height=4).place(np.zeros((4, 2, 1), np.uint8))
        Placement(size=(2, 4), box=(0, 0, 2, 4), mirrored=False, filled=(2, 4))
        """
        height, width = pixels.shape[:2]
        whole: Box = (0, 0, width, height)
        found = self._find_breast(pixels)
        box = found[0] if found is not None and self.region == "breast" else whole
        mirrored = found is not None and self.orientation == "left" and found[1] == "right"
        return Placement((width, height), box, mirrored, self._target_size(box[2], box[3]))

    def _find_breast(self, pixels: Pixels) -> tuple[Box, Literal["left", "right"]] | None:
        if self.region != "breast" and self.orientation != "left":
            return None
        from clearmargin.images.breast import find_breast  # noqa: PLC0415  (SciPy, which patches do not need)

        return find_breast(pixels)

    def _target_size(self, width: int, height: int) -> tuple[int, int]:
        if self.fit == "stretch":
            return self.width, self.height
        scale = min(1.0, self.width / width, self.height / height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _pad(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # Below and to the right, so that the (x, y) of a patch stays the place of its first pixel.
        below, right = self.height - pixels.shape[0], self.width - pixels.shape[1]
        if below == 0 and right == 0:
            return pixels
        margins = ((0, below), (0, right), (0, 0))
        if self.padding == "mirror":
            return np.pad(pixels, margins, mode="symmetric")
        return np.pad(pixels, margins, constant_values=_PADDING_VALUE[self.padding])


def choose_preprocessing(
    settings: ImageSettings, sizes: NDArray[np.integer], *, content: Content | None = None
) -> Preprocessing:
    """The spec for a data set.

    Args:
        settings: as configured; its size, region and padding may be `auto`.
        sizes: (N, 2), width and height of the images, N at least 1.
        content: what the images show, where it is known.

    >>> from clearmargin.settings import ImageSettings
    >>> choose_preprocessing(ImageSettings(), np.array([[50, 50], [50, 50], [50, 37]])).shape
    (50, 50, 3)
    >>> choose_preprocessing(ImageSettings(), np.array([[700, 460]])).shape
    (84, 128, 3)
    """
    if settings.size == "auto":
        distinct, counts = np.unique(sizes, axis=0, return_counts=True)
        width, height = (int(side) for side in distinct[counts.argmax()])
        scale = min(1.0, settings.largest_px / max(width, height))
        width, height = (min(settings.largest_px, max(8, round(side * scale))) for side in (width, height))
    else:
        width, height = settings.size
    is_mammogram = content == "mammogram"
    region: Literal["whole", "breast"] = "breast" if is_mammogram else "whole"
    padding: Literal["mirror", "black"] = "black" if is_mammogram else "mirror"  # a mirror would show two breasts
    return Preprocessing(
        width=width,
        height=height,
        channels=settings.channels,
        fit=settings.fit,
        padding=padding if settings.padding == "auto" else settings.padding,
        interpolation=settings.interpolation,
        region=region if settings.region == "auto" else settings.region,
        orientation=settings.orientation,
        dicom_window=settings.dicom_window,
        mean=settings.mean,
        std=settings.std,
    )


def _resize(pixels: Pixels, size: tuple[int, int], interpolation: str) -> Pixels | NDArray[np.float32]:
    height, width = pixels.shape[:2]
    if size == (width, height):
        return pixels
    resampling = _RESAMPLING[interpolation]
    if interpolation == "area" and (size[0] > width or size[1] > height):
        resampling = Image.Resampling.BILINEAR  # a box narrower than a pixel would be nearest neighbour
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        resized = np.asarray(image.resize(size, resampling))
        return resized[:, :, np.newaxis] if resized.ndim == 2 else resized
    planes = [Image.fromarray(plane.astype(np.float32)).resize(size, resampling) for plane in np.moveaxis(pixels, 2, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def _to_8_bit(pixels: Pixels | NDArray[np.float32]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    scaled: NDArray[np.float32] = np.rint(pixels.astype(np.float32) / 257.0)
    return scaled.clip(0, 255).astype(np.uint8)


def _to_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    luma: NDArray[np.uint8] = np.asarray(Image.fromarray(pixels).convert("L"))  # ITU-R 601
    return luma[:, :, np.newaxis]
