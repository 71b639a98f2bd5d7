"""A picture of a model as one SVG: a card for each layer with the feature map that comes out of it, lines between them.

Norms, activations and dropout stand on the card of the layer that they follow. A network of more layers than can be
looked at is drawn by its blocks. The picture is whole in itself: no script, no font, nothing fetched; light or dark as
its viewer likes. Where the cards go is found in `layout.py`.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import log2, sqrt

from clearmargin.errors import one_line
from clearmargin.models.describe import Description, Layer
from clearmargin.models.layout import Layout, Point, arrange

MOST_CARDS = 72
"""More than these, and the blocks are drawn in their place."""
_WIDTH, _LINE = 340, 17
_PILL = (188, 34)
"""Of the place where branches meet."""
_MARGIN, _HEAD, _FRAME = 36, 84, 11
_FOLLOWERS = frozenset({
    "batch norm", "layer norm", "group norm", "dropout", "flatten", "clamp", "softmax",
    "ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU", "GELU", "SiLU", "Mish", "Sigmoid", "Hardsigmoid",
    "Hardswish", "Hardtanh", "Tanh", "Softmax", "sigmoid", "tanh", "hardsigmoid", "hardswish", "leaky_relu", "mish",
})  # fmt: skip
_SIGNS = {"add": "+", "concatenate": "∥", "multiply": "×", "subtract": "−"}
_ROLES = {"attention": "attention", "convolution": "convolution", "dense": "dense", "product": "dense", "pool": "pool"}


@dataclass(frozen=True, slots=True)
class Drawing:
    """The text of the SVG, and what the user should know of how it came about ("" for nothing)."""

    svg: str
    note: str


@dataclass(slots=True)
class _Card:
    layers: list[Layer]
    block: str
    heading: tuple[str, str]
    notes: list[str]

    @property
    def sign(self) -> str:
        return _SIGNS.get(self.heading[0], "") if " and " in self.layers[0].detail else ""

    @property
    def size(self) -> Point:
        return _PILL if self.sign else (_WIDTH, _LINE * (3 if _costs(self.layers) else 2) + 14)

    @property
    def role(self) -> str:
        kinds = " ".join(layer.kind for layer in self.layers)
        return next((role for word, role in _ROLES.items() if word in kinds), "other")


def draw_model(description: Description, *, name: str) -> Drawing:
    """The picture of a model.

    Args:
        description: of `describe_model`.
        name: of the model; for the title.
    """
    cards, edges = _group(description)
    groups: dict[str, list[int]] = {}
    for number, card in enumerate(cards):
        if card.block:
            groups.setdefault(card.block, []).append(number)
    groups = {block: members for block, members in groups.items() if len(members) > 1}
    layout = arrange([card.size for card in cards], edges, groups)
    return Drawing(_page(description, cards, groups, layout, name), layout.note)


def _group(description: Description) -> tuple[list[_Card], list[tuple[int, int]]]:
    """The cards and the edges between them; few enough to be looked at."""
    place = _followed(description)
    if len(set(place)) > MOST_CARDS:
        deepest = max(layer.name.count(".") for layer in description.layers) + 1
        followed = place
        folded = [_folded(description, followed, depth) for depth in range(deepest, 0, -1)]
        place = next((each for each in folded if len(set(each)) <= MOST_CARDS), folded[-1])
    numbers = {first: number for number, first in enumerate(sorted(set(place)))}
    members: list[list[Layer]] = [[] for _ in numbers]
    for layer, first in zip(description.layers, place, strict=True):
        members[numbers[first]].append(layer)
    pairs = {(numbers[place[source]], numbers[place[target]]) for source, target in description.edges}
    return [_card(layers) for layers in members], sorted(pair for pair in pairs if pair[0] != pair[1])


def _followed(description: Description) -> list[int]:
    """For each layer the one on whose card it stands: the one before, if it only finishes that one's work."""
    before: dict[int, list[int]] = {}
    after: dict[int, list[int]] = {}
    for source, target in description.edges:
        before.setdefault(target, []).append(source)
        after.setdefault(source, []).append(target)
    place = list(range(len(description.layers)))
    for number, layer in enumerate(description.layers):
        sources = before.get(number, [])
        if layer.kind in _FOLLOWERS and len(sources) == 1 and len(after[sources[0]]) == 1 and sources[0] > 0:
            place[number] = place[sources[0]]
    return place


def _folded(description: Description, followed: list[int], depth: int) -> list[int]:
    """For each layer the first of its neighbours in the same part of the network, `depth` names deep."""
    place: list[int] = []
    last, first = "", 0
    for number, layer in enumerate(description.layers):
        if followed[number] != number:
            place.append(place[followed[number]])
            continue
        part = ".".join(layer.name.split(".")[:depth]) if "." in layer.name else layer.name
        if part != last:
            last, first = part, number
        place.append(first)
    return place


def _card(layers: list[Layer]) -> _Card:
    first = layers[0]
    if all(layer.kind in _FOLLOWERS for layer in layers[1:]):
        notes = [f"{layer.kind} {layer.detail}".strip() for layer in layers[1:]]
        return _Card(layers, first.block, (first.kind, first.detail), notes)
    own = next(
        n for n in range(len(layers), 0, -1) if layers[n - 1].kind not in _FOLLOWERS
    )  # others may be of the next
    parts = [layer.name.split(".") for layer in layers[:own]]
    alike = takewhile(lambda names: len(set(names)) == 1, zip(*parts, strict=False))
    title = ".".join(names[0] for names in alike) or first.name
    block = first.block if first.block and f"{title}.".startswith(f"{first.block}.") and title != first.block else ""
    title = title if len(title) <= 22 else f"…{title[-21:]}"
    return _Card(layers, block, (title, f"{len(layers)} layers"), [])


def _page(description: Description, cards: list[_Card], groups: dict[str, list[int]], layout: Layout, name: str) -> str:
    title = f"{one_line(name)}"
    shape = description.layers[0].shape
    facts = [
        f"image {shape[2]}×{shape[1]}×{shape[0]}",
        f"{description.parameters:,} parameters ({size_words(description.weight_bytes)})",
        f"{short_number(description.multiply_adds)} multiply-adds an image",
    ]
    if description.networks > 1:
        facts.insert(1, f"{description.networks} networks")
    subtitle = " · ".join(facts)
    width = max(layout.width, 6.8 * len(subtitle), 12 * len(title)) + 2 * _MARGIN
    height = layout.height + _HEAD + 2 * _MARGIN
    shift = (width - layout.width) / 2, float(_HEAD + _MARGIN)
    body = [
        f'<text class="title" x="{_MARGIN}" y="46">{_text(title)}</text>',
        f'<text class="facts" x="{_MARGIN}" y="68">{_text(subtitle)}</text>',
        f'<g transform="translate({shift[0]:.1f} {shift[1]:.1f})">',
        *_ensemble(description, cards, layout),
        *(_frame(block, members, cards, layout) for block, members in groups.items()),
        *(_line(points) for points in layout.paths),
        *(_draw(card, center, shape) for card, center in zip(cards, layout.centers, strict=True)),
        "</g>",
    ]
    label = _text(f"{title}: {subtitle}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{label}">\n<title>{label}</title>\n'
        f"<style>{_STYLE}</style>\n{_ARROW}\n"
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _ensemble(description: Description, cards: list[_Card], layout: Layout) -> list[str]:
    """Further sheets behind the one network that is drawn, for those that are like it."""
    if description.networks == 1:
        return []
    left, top, right, bottom = _bounds(range(len(cards) - 1), cards, layout)
    sheets = [
        f'<rect class="sheet" x="{left - 18 + 5 * n:.1f}" y="{top - 20 - 5 * n:.1f}" '
        f'width="{right - left + 36:.1f}" height="{bottom - top + 32:.1f}" rx="14"/>'
        for n in (2, 1, 0)
    ]
    words = f"one of {description.networks} alike"
    return [*sheets, f'<text class="block" x="{right + 8:.1f}" y="{top - 6:.1f}" text-anchor="end">{words}</text>']


def _frame(block: str, members: list[int], cards: list[_Card], layout: Layout) -> str:
    left, top, right, bottom = _bounds(members, cards, layout)
    return (
        f'<rect class="frame" x="{left - _FRAME:.1f}" y="{top - _FRAME:.1f}" '
        f'width="{right - left + 2 * _FRAME:.1f}" height="{bottom - top + 2 * _FRAME:.1f}" rx="12"/>'
        f'<text class="block" x="{right + _FRAME - 8:.1f}" y="{bottom + 2:.1f}" text-anchor="end">{_text(block)}</text>'
    )


def _bounds(members: Sequence[int], cards: list[_Card], layout: Layout) -> tuple[float, float, float, float]:
    boxes = [(layout.centers[n], cards[n].size) for n in members]
    return (
        min(x - w / 2 for (x, _), (w, _) in boxes),
        min(y - h / 2 for (_, y), (_, h) in boxes),
        max(x + w / 2 for (x, _), (w, _) in boxes),
        max(y + h / 2 for (_, y), (_, h) in boxes),
    )


def _line(points: Sequence[Point]) -> str:
    pairs = [f"{x:.1f} {y:.1f}" for x, y in points]
    return f'<path class="line" d="M{pairs[0]} C{" ".join(pairs[1:])}" marker-end="url(#arrow)"/>'


def _draw(card: _Card, center: Point, image: tuple[int, ...]) -> str:
    (x, y), (width, height) = center, card.size
    left, top = x - width / 2, y - height / 2
    last = card.layers[-1]
    shape = "×".join(map(str, last.shape)) or ("1" if last.kind == "logit" else "")
    hint = f"<title>{_text(', '.join(layer.name for layer in card.layers[:12]))}</title>"
    below = " · ".join(filter(None, [shape, *card.notes]))
    if card.sign:
        return (
            f'<g>{hint}<rect class="card {card.role}" x="{left:.1f}" y="{top:.1f}" width="{width}" height="{height}" '
            f'rx="{height / 2}"/><text class="sign" x="{left + 22:.1f}" y="{y + 7:.1f}">{card.sign}</text>'
            f'<text class="small" x="{left + 42:.1f}" y="{y + 4:.1f}">{_text(_clip(below, 22))}</text></g>'
        )
    text, (kind, detail) = left + 84, card.heading
    lines = [
        f'<text class="kind" x="{text:.1f}" y="{top + 21:.1f}">{_text(_clip(kind, 34))}'
        f'<tspan class="detail" dx="6">{_text(_clip(detail, max(37 - len(kind), 8)))}</tspan></text>',
        f'<text class="small" x="{text:.1f}" y="{top + 21 + _LINE:.1f}">{_text(_clip(below, 42))}</text>',
    ]
    if costs := _costs(card.layers):
        lines.append(f'<text class="small" x="{text:.1f}" y="{top + 21 + 2 * _LINE:.1f}">{_text(costs)}</text>')
    return (
        f'<g>{hint}<rect class="card {card.role}" x="{left:.1f}" y="{top:.1f}" width="{width}" height="{height}" '
        f'rx="9"/>{_map(last.shape, (left + 42, y), height - 14, image, card.role)}{"".join(lines)}</g>'
    )


def _map(shape: tuple[int, ...], center: Point, most: float, image: tuple[int, ...], role: str) -> str:
    """A small body for the feature map: a face as large as the map, as deep as it has channels; a bar for a vector."""
    x, y = center
    if len(shape) < 2:
        height = min(most, 8 + 3.4 * log2(max(1, *shape)) if shape else 8)
        return _bar((x, y), 8, height, role)
    if len(shape) == 2:  # tokens: as many as it is high, as long as it is wide
        height = 8 + (most - 8) * min(1.0, sqrt(shape[0] / (image[1] * image[2] / 64)))
        width = 6 + 3.4 * log2(max(1, shape[1]))
        return _bar((x, y), width, height, role)
    channels, rows, columns = shape[-3:]
    deep = 1 + 1.4 * log2(max(1, channels))
    longest = max(image[1:])
    wide, high = ((most - 15) * min(1.0, sqrt(side / longest)) + 3 for side in (columns, rows))
    left, top = x - (wide + deep) / 2, y - (high - deep) / 2
    right, bottom = left + wide, top + high

    def side(points: Sequence[Point], name: str) -> str:
        corners = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        return f'<polygon class="map {role} {name}" points="{corners}"/>'

    back = [(left + deep, top - deep), (right + deep, top - deep), (right + deep, bottom - deep)]
    return (
        side([(left, top), (right, top), (right, bottom), (left, bottom)], "face")
        + side([(left, top), back[0], back[1], (right, top)], "lid")
        + side([(right, top), back[1], back[2], (right, bottom)], "flank")
    )


def _bar(center: Point, width: float, height: float, role: str) -> str:
    left, top = center[0] - width / 2, center[1] - height / 2
    return f'<rect class="map {role}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"/>'


def _costs(layers: Sequence[Layer]) -> str:
    parameters = sum(layer.parameters for layer in layers)
    costs = sum(layer.multiply_adds for layer in layers)
    parts = [f"{short_number(parameters)} parameters"] if parameters else []
    return " · ".join([*parts, f"{short_number(costs)} multiply-adds"] if costs else parts)


def short_number(number: int) -> str:
    """The number, from 10,000 on with three digits and a letter for thousands and more.

    >>> [short_number(n) for n in (864, 9_216, 36_864, 6_230_016, 999_999, 71_421_408, 4_489_799_424)]
    ['864', '9,216', '36.9 k', '6.23 M', '1.00 M', '71.4 M', '4.49 G']
    """
    if number < 10_000:
        return f"{number:,}"
    value, letter = float(number), ""
    for letter in ("", " k", " M", " G", " T"):
        if value < 999.5 or letter == " T":
            break
        value /= 1000
    digits = 0 if not letter or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f}{letter}"


def size_words(size: int) -> str:
    """Bytes in words.

    >>> [size_words(n) for n in (516, 15_204, 2_790_908, 110_086_660)]
    ['516 bytes', '15.2 kB', '2.79 MB', '110 MB']
    """
    return f"{short_number(size)} bytes" if size < 10_000 else f"{short_number(size)}B"


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: max(1, most - 1)]}…"


def _text(text: str) -> str:
    return html.escape(one_line(text))


_LIGHT = {
    "paper": "#ffffff", "ink": "#1f1b1d", "muted": "#6a6266", "line": "#a79fa4", "card": "#fbf9fa", "frame": "#f3eef1",
    "convolution": "#a5195f", "dense": "#5847b0", "pool": "#17787a", "attention": "#b0601a", "other": "#6f7f8f",
}  # fmt: skip
_DARK = {
    "paper": "#17151a", "ink": "#f1edf0", "muted": "#aaa1a9", "line": "#6b636b", "card": "#242028", "frame": "#1e1b21",
    "convolution": "#ec6aa5", "dense": "#a497f5", "pool": "#58c4c5", "attention": "#e8a55f", "other": "#93a1ae",
}  # fmt: skip


def _colours(of: dict[str, str]) -> str:
    roles = "".join(
        f".card.{role}{{stroke:{of[role]}}}.map.{role}{{fill:{of[role]};stroke:{of[role]}}}"
        for role in ("convolution", "dense", "pool", "attention", "other")
    )
    return (
        f".paper,.sheet{{fill:{of['paper']}}}.sheet{{stroke:{of['line']}}}.frame{{fill:{of['frame']};stroke:{of['line']}}}"
        f".card{{fill:{of['card']}}}.title,.kind,.sign{{fill:{of['ink']}}}.detail{{fill:{of['ink']}}}"
        f".facts,.small,.block{{fill:{of['muted']}}}.line{{stroke:{of['line']}}}.tip{{fill:{of['line']}}}"
        f".block{{stroke:{of['frame']}}}{roles}"
    )


_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif}"
    ".title{font-size:20px;font-weight:650}.facts{font-size:12.5px}.kind{font-size:13px;font-weight:600}"
    ".detail{font-weight:400}.small{font-size:11.5px}"
    ".block{font-size:10.5px;paint-order:stroke;stroke-width:3px;stroke-linejoin:round}"
    ".sign{font-size:20px;text-anchor:middle}"
    ".card{stroke-width:1.25}.frame{stroke-dasharray:3 4;stroke-width:1}.line{fill:none;stroke-width:1.5}"
    ".map{stroke-width:.8;fill-opacity:.55;stroke-linejoin:round}.face{fill-opacity:.3}.lid{fill-opacity:.5}"
    f".flank{{fill-opacity:.75}}{_colours(_LIGHT)}@media (prefers-color-scheme:dark){{{_colours(_DARK)}}}"
)
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="tip" d="M0 0.6 L8 4 L0 7.4 z"/></marker></defs>'
)
