"""The report of a run: one HTML file that needs nothing else, neither script nor font nor network.

Everything that comes from data is escaped by the template; only our own SVGs and style sheet are not, and
the page's own policy forbids scripts and requests. The same run folder gives the same bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from clearmargin.report import gallery, provenance, reproduction, results, words
from clearmargin.report.checklist import read_checklists
from clearmargin.report.content import evidence
from clearmargin.report.document import Shown
from clearmargin.report.environment import build_environment
from clearmargin.report.run_files import RunFiles
from clearmargin.report.svg import Picture
from clearmargin.report.words import decimal, percent
from clearmargin.types import INTENDED_USE, OPTIMISTIC_STAMP


def render_report(run: RunFiles, *, load_image: Callable[[str], NDArray[np.uint8]]) -> str:
    """The page as text."""
    mistakes = gallery.find_mistakes(run.rows)
    sections = evidence(run)
    return (
        _environment()
        .get_template("template.html.jinja")
        .render(
            run=run,
            style=Markup((Path(__file__).parent / "style.css").read_text(encoding="utf-8")),
            banner=results.banner(run, stamp=OPTIMISTIC_STAMP),
            answer=results.answer(run),
            headline=results.headline_table(run),
            sections=sections,
            cards=gallery.build_cards(mistakes, load_image),
            mistake_counts={kind: len(found) for kind, found in mistakes.items()},
            split_rows=provenance.split_rows(run),
            methods=provenance.methods(run),
            classification_report=provenance.classification_report(run),
            machine=reproduction.machine(run),
            stages=reproduction.stages(run.environment),
            settings=reproduction.settings(run.training) if run.training else [],
            checklists=read_checklists(),
            intended_use=INTENDED_USE,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = build_environment()
    environment.filters |= {
        "decimal": decimal,
        "percent": percent,
        "count": words.count,
        "plural": words.plural,
        "moment": words.moment,
        "inline": as_html,
        "flow": provenance.flow_steps,
        "by_severity": provenance.findings_by_severity,
        "counts_line": provenance.counts_line,
    }
    environment.tests["shown"] = lambda value: isinstance(value, Shown)
    return environment


def as_html(picture: Picture) -> Markup:
    """Our own SVG as part of an HTML document, where the namespace is implied."""
    return Markup(picture.svg.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1))
