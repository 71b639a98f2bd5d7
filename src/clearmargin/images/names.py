"""What the file names of known data sets say; light to import, because single predictions use it too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from clearmargin.types import BENIGN, MALIGNANT

_IDC = re.compile(r"^(?P<patient>[^/]+?)_idx\d+_x(?P<x>\d{1,9})_y(?P<y>\d{1,9})_class(?P<label>[01])\.\w+$")
_BREAKHIS = re.compile(
    r"^SOB_(?P<label>[BM])_(?P<type>[A-Z]{1,3})-(?P<patient>\d{2}-\d{1,9})(?P<part>[A-Z]{0,3})"
    r"-(?P<magnification>\d{1,4})-\d{1,5}\.\w+$",
    re.IGNORECASE | re.ASCII,
)
_MASK = re.compile(r"^(?P<image>.+)_mask(_\d+)?$")
_BUSI = re.compile(
    r"^(?P<image>(?P<kind>benign|malignant|normal) ?\(\d{1,6}\))(?P<mask>_mask(?:_\d{1,3})?)?\.\w+$",
    re.IGNORECASE | re.ASCII,
)

BusiKind = Literal["benign", "malignant", "normal"]
_BUSI_KINDS: dict[str, BusiKind] = {"benign": "benign", "malignant": "malignant", "normal": "normal"}


@dataclass(frozen=True, slots=True)
class BreakhisName:
    """What a BreaKHis name says; `tumour_type` is A, F, PT, TA, DC, LC, MC or PC."""

    label: int
    tumour_type: str
    patient_id: str
    slide_id: str
    magnification: int


@dataclass(frozen=True, slots=True)
class BusiName:
    """What a BUSI name says; `image` is the name without extension of the image, of which a mask is one."""

    kind: BusiKind
    image: str
    is_mask: bool


def parse_idc_name(name: str) -> tuple[str, int, int, int] | None:
    """Patient, x, y and label of an IDC file name, or None for a name of another form.

    >>> parse_idc_name("8863_idx5_x451_y1451_class0.png")
    ('8863', 451, 1451, 0)
    """
    match = _IDC.match(name)
    return (match["patient"], int(match["x"]), int(match["y"]), int(match["label"])) if match else None


def parse_breakhis_name(name: str) -> BreakhisName | None:
    """Class, type, patient, slide and magnification of a BreaKHis file name, or None for a name of another form.

    The number of a slide is the patient's; letters behind it tell slides of one patient apart.

    >>> parse_breakhis_name("SOB_B_A-14-22549AB-100-027.png")
    BreakhisName(label=0, tumour_type='A', patient_id='14-22549', slide_id='14-22549AB', magnification=100)
    """
    match = _BREAKHIS.match(name)
    if match is None:
        return None
    return BreakhisName(
        label=MALIGNANT if match["label"].upper() == "M" else BENIGN,
        tumour_type=match["type"].upper(),
        patient_id=match["patient"],
        slide_id=match["patient"] + match["part"].upper(),
        magnification=int(match["magnification"]),
    )


def parse_busi_name(name: str) -> BusiName | None:
    """Class and image of a BUSI file name and whether it is a mask, or None for a name of another form.

    >>> parse_busi_name("benign (4)_mask_1.png")
    BusiName(kind='benign', image='benign (4)', is_mask=True)
    """
    match = _BUSI.match(name)
    if match is None:
        return None
    return BusiName(_BUSI_KINDS[match["kind"].lower()], match["image"], match["mask"] is not None)


def label_of_name(name: str) -> int | None:
    """The label that the name of a file of a known data set gives, or None.

    >>> label_of_name("SOB_M_DC-14-3909-100-014.png"), label_of_name("normal (1).png"), label_of_name("a.png")
    (1, None, None)
    """
    if (idc := parse_idc_name(name)) is not None:
        return idc[3]
    if (breakhis := parse_breakhis_name(name)) is not None:
        return breakhis.label
    if (busi := parse_busi_name(name)) is not None:
        return {"benign": BENIGN, "malignant": MALIGNANT}.get(busi.kind)
    return None


def image_of_mask(name: str) -> str | None:
    """Of the name of a mask, …_mask or …_mask_1, that of its image, without extension; None for any other name.

    >>> image_of_mask("a_mask_1.png"), image_of_mask("a.png")
    ('a', None)
    """
    match = _MASK.match(name.rpartition(".")[0])
    return match["image"] if match else None


def find_masks(names: Iterable[str]) -> set[str]:
    """The names that are those of a mask, …_mask or …_mask_1, of another image among them.

    >>> find_masks(["a.png", "a_mask.png", "b_mask.png"])
    {'a_mask.png'}
    """
    images = {name: image_of_mask(name) for name in names}
    stems = {name.rpartition(".")[0] for name in images}
    return {name for name, image in images.items() if image in stems}
