"""`clearmargin calibrate`: probabilities, threshold and abstention chosen anew on other images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from clearmargin.cli.options import BundlePath, Coverage, Data, Settings, with_image_options


@with_image_options
def calibrate(
    bundle: BundlePath,
    data: Data,
    out: Annotated[Path, typer.Option(help="The bundle folder to make.")],
    coverage: Coverage = None,
    settings: Settings = None,
    *,
    images: dict[str, Any],
) -> None:
    """Make a bundle with the same network that decides anew, by images that it was not trained on."""
    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.config import parse_settings
    from clearmargin.errors import counted

    made = api.calibrate(
        bundle,
        data,
        out,
        coverage=coverage,
        settings=parse_settings(settings or []),
        listener=build_listener(),
        **images,
    )
    whose = "" if made.n_patients is None else f" of {counted(made.n_patients, 'patient', 'patients')}"
    point = made.choices.point
    print(
        f"\nChosen on {made.n_images:,} images{whose}: calibration by {made.choices.calibration.method}, malignant at"
    )
    print(f"or above {point.threshold:.4f} ({point.name}). Brier score on these very images {made.before:.4f} before,")
    print(f"{made.after:.4f} now, which flatters it; on new patients it is what 'evaluate' says.")
    region = made.choices.abstention
    if isinstance(region, str):
        print(f"It always decides: {region}.")
    elif region.between is not None:
        low, high = region.between
        print(f"Cannot tell from {low:.4f} to {high:.4f} (promised coverage {region.coverage:g}).")
    print(f"\nbundle   {made.folder}")
    print(f"next     clearmargin evaluate {shlex.quote(str(made.folder))} OTHER_IMAGES --out DIR")
