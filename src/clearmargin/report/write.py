"""The files that are made of a finished run: the page, its companions, and the forms for a paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearmargin.files import write_text
from clearmargin.report.checklist import write_checklists
from clearmargin.report.html import render_report
from clearmargin.report.latex import write_latex
from clearmargin.report.markdown import write_markdown
from clearmargin.report.pictures import write_figures
from clearmargin.report.run_files import read_run


def write_report(run: Path, *, load_image: Callable[[str], NDArray[np.uint8]]) -> Path:
    """Write `report.html` into the run folder and return its path.

    Args:
        run: a finished run or external evaluation; metrics.json and predictions.csv are needed, config.toml,
            environment.json, audit.json, split.csv and history.csv are used where they are.
        load_image: path as in predictions.csv to uint8 (H, W, 3) RGB or (H, W, 1) grey; called for at most 12
            images. An `ImageError` becomes a placeholder with its reason.

    Raises:
        DataError: the folder is not a finished run, or a file in it cannot be read.
        ConfigError: config.toml has settings that this version does not know.
    """
    text = render_report(read_run(run), load_image=load_image)
    target = run / "report.html"
    write_text(target, text)
    return target


def write_artefacts(
    run: Path, *, load_image: Callable[[str], NDArray[np.uint8]], figures: Path | None = None
) -> list[Path]:
    """Write `report.html` and `checklists/` into the run folder and return the paths of the files.

    Args:
        run: as for `write_report`.
        load_image: as for `write_report`.
        figures: where figures for papers go; none are drawn without it, as that takes longer than all the rest.

    Raises:
        DataError: as for `write_report`.
        ConfigError: as for `write_report`.
    """
    files = read_run(run)
    written = [write_report(run, load_image=load_image), *write_checklists(files)]
    return [*written, *(write_figures(files, figures) if figures else [])]


def write_forms(run: Path, form: Literal["markdown", "latex-table"], *, figures: Path | None = None) -> list[Path]:
    """Write the run as text and return the paths of the files.

    Args:
        run: as for `write_report`.
        form: `markdown` for `report.md` with its figures, `latex-table` for `table.tex`.
        figures: where the figures go; by default `figures/` of the run folder, as `report.md` expects.

    Raises:
        DataError: as for `write_report`.
        ConfigError: as for `write_report`.
    """
    files = read_run(run)
    if form == "latex-table":
        return [write_latex(files), *(write_figures(files, figures) if figures else [])]
    return [write_markdown(files), *write_figures(files, figures or run / "figures")]
