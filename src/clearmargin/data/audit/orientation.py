"""From which edge the breast comes in, in each mammogram, and which of them look mirrored."""

from __future__ import annotations

import pandas as pd

from clearmargin.data.manifest import Manifest
from clearmargin.errors import counted
from clearmargin.types import Finding

_RULE = 0.75
"""Share of a side's images that agree on an edge before the others are called mirrored."""


def find_orientation(manifest: Manifest, facts: pd.DataFrame) -> list[Finding]:
    """How the breasts lie, and the images that lie unlike the others of the same side.

    Args:
        manifest: the usable images; `side` is used where it is known.
        facts: one row an image; its column `edge` is left, right or, where no breast was looked for, empty.
    """
    edges = facts["edge"].reset_index(drop=True)
    known = edges[edges != ""]
    if known.empty:
        return []
    counts = {edge: int((known == edge).sum()) for edge in ("left", "right")}
    findings = [
        Finding(
            "orientation",
            "note",
            f"the breast comes in from the left edge in {counts['left']:,} and from the right edge in "
            f"{counts['right']:,} mammograms, as far as their pixels tell.",
            "Nothing to do; --set images.orientation=left mirrors those from the right, for training and prediction.",
            (),
            len(known),
            "likely",
        )
    ]
    sides = manifest.frame["side"].reset_index(drop=True)[known.index]
    usual = {
        side: group.mode()[0]
        for side, group in known.groupby(sides)
        if group.value_counts(normalize=True).max() >= _RULE
    }
    unlike = known[[usual.get(side, edge) != edge for side, edge in zip(sides, known, strict=True)]]
    if len(unlike):
        paths = tuple(manifest.frame["path"].iloc[unlike.index])
        findings.append(
            Finding(
                "mirrored",
                "note",
                f"{counted(len(unlike), 'mammogram lies', 'mammograms lie')} unlike the others of the same side, "
                f"the first is '{paths[0]}': mirrored, or its side is wrong.",
                "Look at them; --set images.orientation=left makes all lie alike.",
                paths,
                len(unlike),
                "possible",
            )
        )
    return findings
