"""Drawing without side effects: a matplotlib figure becomes one SVG that can stand inside any page, or a file.

The same figure always gives the same text: fixed salt, no date, coordinates to a hundredth. In the page
colours are CSS variables with a fallback, so that the page decides between light and dark; text stays text in
the page's own font. A file has colours and letters of its own, for print. `matplotlib.pyplot` is never
imported and the user's settings neither matter here nor are changed. What is drawn is elsewhere (`plots.py`).
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from clearmargin.files import write_whole

WIDTH, HEIGHT = 360, 290
"""Of an ordinary figure, in user units; one is about one CSS pixel where three stand side by side."""

INK, MUTED, GRID, ACCENT, NEUTRAL, PAPER = (f"#0{n}0{n}0{n}" for n in range(1, 7))
"""Stand-ins that no palette has; `render` turns each into its CSS variable."""

# The fallbacks show where the SVG is opened by itself, on a light or a dark ground alike.
_VARIABLES = {
    INK: "var(--plot-ink, #70757f)",
    MUTED: "var(--plot-muted, #858a94)",
    GRID: "var(--plot-grid, #85858555)",
    ACCENT: "var(--plot-accent, #c93a78)",
    NEUTRAL: "var(--plot-neutral, #7b8794)",
    PAPER: "var(--plot-paper, #ffffff)",
}

_PNG_DPI = 144

_PRINTED = {INK: "#1f1b1d", MUTED: "#6a6266", GRID: "#e5dfdc", ACCENT: "#a5195f", NEUTRAL: "#6f7f8f", PAPER: "#ffffff"}
_COLOURED = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 10.5,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.titlecolor": MUTED,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titlepad": 9,
    "axes.edgecolor": GRID,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.75,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "lines.linewidth": 1.75,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "legend.borderpad": 0.0,
    "legend.borderaxespad": 0.0,
}
# Those that are about the session rather than about drawing are left as they are.
_KEPT = {"backend", "backend_fallback", "interactive", "toolbar", "timezone"}


@contextmanager
def drawing(*, height: float = HEIGHT) -> Iterator[Figure]:
    """An empty figure under our settings alone; build and `render` it inside the block."""
    with matplotlib.rc_context(_settings()):
        yield Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")


def _settings() -> dict[Any, Any]:
    defaults = {key: matplotlib.rcParamsDefault[key] for key in matplotlib.rcParamsDefault if key not in _KEPT}
    return defaults | _SETTINGS


def legend_above(axes: Axes, *, columns: int = 3) -> None:
    """The legend in one row over the axes, where it can hide no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.02), ncols=columns)


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure that was drawn: `svg` stands inside a page, `save` makes a file of it."""

    svg: str
    _figure: Figure = field(repr=False)
    _name: str
    _texts: Mapping[str, str] = field(repr=False)

    def save(self, path: Path) -> None:
        """Writes the figure as the kind of file that its name says, .svg, .pdf or .png; the same bytes each time."""
        _print_colours(self._figure)
        for text in self._figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_text(self._texts.get(text.get_text(), text.get_text()))
        kind = path.suffix.removeprefix(".")
        particulars: dict[str, dict[str, Any]] = {
            "svg": {"metadata": {"Date": None, "Creator": None}},
            "pdf": {"metadata": {"CreationDate": None, "Creator": None}},
            "png": {"metadata": {"Software": None}, "facecolor": "white", "dpi": _PNG_DPI},
        }
        # As outlines, the letters need no font where the picture is looked at.
        letters = {"svg.fonttype": "path", "pdf.fonttype": 42, "svg.hashsalt": f"clearmargin-{self._name}"}
        with matplotlib.rc_context(_settings() | letters), warnings.catch_warnings():
            # A name may hold letters that the font lacks; they become boxes.
            warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
            write_whole(path, lambda partial: self._figure.savefig(partial, format=kind, **particulars[kind]))


def _print_colours(figure: Figure) -> None:
    """Puts the colours of print in the place of the stand-ins."""
    figure.draw_without_rendering()  # ticks come into being when they are drawn
    figure.set_facecolor("none")
    for artist in figure.findobj():
        for part in _COLOURED:
            _print_colour(artist, part)


def _print_colour(artist: Artist, part: str) -> None:
    get, put = getattr(artist, f"get_{part}", None), getattr(artist, f"set_{part}", None)
    if get is None or put is None:
        return
    now = get()
    if isinstance(now, str) and now in ("none", "auto"):
        return
    colours = [now] if isinstance(now, str | tuple) else list(now)
    stand_ins = {_PRINTED.get(to_hex(colour)) for colour in colours}
    if len(stand_ins) == 1 and (printed := stand_ins.pop()):
        put(printed)


def render(figure: Figure, name: str, *, title: str, texts: Mapping[str, str] | None = None) -> Picture:
    """The figure as a picture whose `svg` is one `<svg>` element.

    Args:
        figure: made by `drawing`, in whose block this is called.
        name: prefix of every id in it, so that several may share a page.
        title: what a screen reader says.
        texts: word drawn in the figure to the text that stands there in the end. Text that comes from
            data goes this way, since it may hold what no font of matplotlib has.
    """
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"clearmargin-{name}"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # A style element would reach out of the picture to the whole page; the root carries its two rules.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]+>", lambda tag: _rewrite_tag(tag[0], name), body)
    body = re.sub(r">\s+<", "><", body).strip()
    if texts:
        words = "|".join(re.escape(word) for word in texts)
        body = re.sub(f"(?<=>)(?:{words})(?=<)", lambda word: html.escape(texts[word[0]]), body)
    width, height = (side * 72 for side in figure.get_size_inches())
    label = html.escape(title)
    element = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" aria-label="{label}" '
        f'viewBox="0 0 {width:g} {height:g}" stroke-linejoin="round" stroke-linecap="butt">'
        f"<title>{label}</title>{body}"
    )
    return Picture(element, figure, name, texts or {})


def _rewrite_tag(tag: str, name: str) -> str:
    tag = re.sub(r"(-?\d+\.\d{3,})", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag)
    tag = re.sub(r"\s*\n", " ", tag)
    tag = tag.replace("xlink:href=", "href=")
    if tag.startswith("<g "):
        tag = re.sub(r' id="[^"]*"', "", tag)
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    # matplotlib before 3.10 writes the shorthand `font`, later ones font-size and font-family.
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"font: (?:normal )?([\d.]+px) [^;\"]*", r"font-size: \1", tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
    for colour, variable in _VARIABLES.items():
        tag = tag.replace(colour, variable)
    return tag
