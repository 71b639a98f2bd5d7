"""Options that several commands share, each written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from clearmargin.errors import UsageError

Result = TypeVar("Result")

Data = Annotated[
    Path, typer.Argument(help="A folder of images, a .zip of one, an .npz, or a CSV or Parquet file with path,label.")
]
BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A bundle folder, a run folder, or a .clearmargin file.")
]
Gated = Annotated[
    bool, typer.Option("--gate/--no-gate", help="Refuse images unlike those that the model was trained on.")
]
IMAGE_OPTIONS: dict[str, tuple[Any, Any]] = {
    "patient_regex": (
        Annotated[
            str | None,
            typer.Option(
                metavar="RE",
                help="A regular expression that finds the patient in each path: its group 'patient', or its first.",
            ),
        ],
        None,
    ),
    "source": (
        Annotated[
            str | None, typer.Option(help="The layout of DATA, a name from docs/data.md; recognised when not given.")
        ],
        None,
    ),
    "exclude": (Annotated[Path | None, typer.Option(help="A text file with one path a line to leave out.")], None),
    "tolerance": (
        Annotated[
            float | None,
            typer.Option(help="Share of unusable files up to which the job goes on without them; 0.01 by default."),
        ],
        None,
    ),
    "labels": (
        Annotated[
            Path | None,
            typer.Option(help="For DICOM folders: a CSV with labels by StudyInstanceUID, SOPInstanceUID or path."),
        ],
        None,
    ),
    "view": (
        Annotated[
            Literal["full", "crop"] | None,
            typer.Option(help="Take full images, or a crop around each lesion; full by default."),
        ],
        None,
    ),
    "normal": (
        Annotated[
            Literal["exclude", "benign"] | None,
            typer.Option(help="What becomes of images without any lesion; excluded by default."),
        ],
        None,
    ),
    "magnification": (
        Annotated[
            str | None,
            typer.Option(metavar="40,100,…", help="For BreaKHis: the magnifications to take; all by default."),
        ],
        None,
    ),
    "frame": (
        Annotated[int | None, typer.Option(help="For DICOM files with several frames: the one to take, from 1.")],
        None,
    ),
    "pseudonymise": (
        Annotated[bool, typer.Option("--pseudonymise", help="Patient ids, slide ids and paths leave as keyed hashes.")],
        False,
    ),
}
"""Which images of DATA are meant: the type and default of each option, see `api.ImageOptions`."""
Frame = IMAGE_OPTIONS["frame"][0]
Coverage = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Share of images answered rightly, 'cannot tell' counted as right; 0.9 by default, 0 decides all.",
    ),
]
Prevalence = Annotated[
    float | None, typer.Option(help="Also give PPV and NPV where this share of images is malignant, say 0.01.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; see docs/settings.md.")
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="tensorboard[:DIR]|mlflow[:URI]",
        help="Follow the run elsewhere too; may be repeated. See docs/tracking.md.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def parse_magnification(text: str | None) -> tuple[int, ...]:
    """The numbers of --magnification.

    >>> parse_magnification("40,100X")
    (40, 100)

    Raises:
        UsageError: something else than whole numbers.
    """
    words = [word.strip().lower().removesuffix("x") for word in (text or "").split(",")]
    words = [word for word in words if word]
    if not all(word.isdecimal() for word in words):
        raise UsageError(f"--magnification {text}: write whole numbers, for example 40,100.")
    return tuple(map(int, words))


def with_image_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """The command with IMAGE_OPTIONS among its options, which it receives as one dictionary, `images`."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "images"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in IMAGE_OPTIONS.items()
    ]

    def gathered(**given: Any) -> Result:
        images = {name: given.pop(name) for name in IMAGE_OPTIONS}
        images["magnification"] = parse_magnification(images["magnification"])
        return command(**given, images=images)

    gathered.__name__, gathered.__doc__ = command.__name__, command.__doc__
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + added
    gathered.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    gathered.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return gathered
