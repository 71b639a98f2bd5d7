"""The picture of a model is one whole SVG, whoever laid it out."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearmargin.models import MODELS, build_model
from clearmargin.models import layout as laying
from clearmargin.models.describe import Description, Layer, describe_model
from clearmargin.models.ensemble import Ensemble
from clearmargin.models.layout import Edge, Layout, arrange, arrange_by_dot, arrange_by_hand
from clearmargin.models.picture import MOST_CARDS, draw_model

SVG = "{http://www.w3.org/2000/svg}"
SIZES = [(300.0, 50.0)] * 4
EDGES = [(0, 1), (1, 2), (0, 3), (2, 3)]
FAKE_DOT = """#!{python}
import re, sys
text = sys.stdin.read()
sizes = re.findall(r"^(\\d+) \\[width=([\\d.]+), height=([\\d.]+)\\]", text, flags=re.MULTILINE)
edges = re.findall(r"^(\\d+) -> (\\d+)", text, flags=re.MULTILINE)
tall = len(sizes)
print("graph 1", 5, tall)
for number, width, height in sizes:
    print("node", number, 2.5, tall - int(number) - 0.5, width, height, "x solid box black lightgrey")
for source, target in edges:
    print("edge", source, target, 4, *(v for n in range(4) for v in (2.5, tall - int(source) - 1)), "solid black")
print("stop")
"""


@pytest.fixture
def no_dot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH without Graphviz; a folder on it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put_dot(folder: Path, text: str) -> Path:
    path = folder / "dot"
    path.write_text(text.format(python=sys.executable) if "{python}" in text else text)
    path.chmod(0o755)
    return path


def describe(name: str, shape: tuple[int, int, int] = (50, 50, 3)) -> Description:
    return describe_model(build_model(name, shape), shape)


def texts(svg: str) -> str:
    return "\n".join("".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text"))


def check_is_whole(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert not {each.tag.removeprefix(SVG) for each in root.iter()} & {"script", "image", "foreignObject", "use", "a"}
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert "prefers-color-scheme" in svg
    assert "nan" not in re.sub(r"<(text|title)[^>]*>.*?</\1>", "", svg)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("no_dot")
def test_every_model_has_a_picture_with_all_its_layers_and_totals(name: str) -> None:
    description = describe(name)
    drawing = draw_model(description, name=name)
    check_is_whole(drawing.svg)
    assert drawing.note == ""
    titles = " ".join(each.text or "" for each in ElementTree.fromstring(drawing.svg).iter(f"{SVG}title"))
    named = set(re.split(r"[ ,]+", titles))
    assert {layer.name for layer in description.layers} <= named
    assert f"{description.parameters:,} parameters" in texts(drawing.svg)
    assert drawing.svg == draw_model(description, name=name).svg


@pytest.mark.usefixtures("no_dot")
def test_a_deep_network_is_drawn_by_its_blocks(timm: ModuleType) -> None:
    deep = describe("timm:test_vit")
    many = replace(
        deep,
        layers=(*deep.layers[:-1], *(Layer(f"trunk.deep.{n // 9}.{n}", "dense", "8", (8,), 1, 8) for n in range(900))),
        edges=tuple((n, n + 1) for n in range(len(deep.layers) + 898)),
    )
    svg = draw_model(many, name="deep").svg
    check_is_whole(svg)
    cards = [each for each in ElementTree.fromstring(svg).iter(f"{SVG}rect") if "card" in each.get("class", "")]
    assert 3 < len(cards) <= MOST_CARDS
    assert "layers" in texts(svg)


@pytest.mark.usefixtures("no_dot")
def test_an_ensemble_is_one_of_so_many() -> None:
    shape = (32, 32, 3)
    whole = Ensemble([build_model("cbis_ddsm", shape, seed=seed) for seed in range(4)]).eval()
    svg = draw_model(describe_model(whole, shape), name="four").svg
    check_is_whole(svg)
    assert "one of 4 alike" in texts(svg)
    assert "mean of 4 networks" in texts(svg)


@pytest.mark.usefixtures("no_dot")
def test_whatever_a_name_holds_it_stays_text() -> None:
    description = describe("cnn_3conv")
    hostile = replace(description.layers[1], name="<script>&\n\x1b", detail='"><script>alert(1)</script>', kind="a<b")
    evil = replace(description, layers=(description.layers[0], hostile, *description.layers[2:]))
    svg = draw_model(evil, name="<img src=x>\x00\ud800").svg
    check_is_whole(svg)
    svg.encode()
    assert "<img src=x>" in texts(svg)


def check_layout(layout: Layout, sizes: list[tuple[float, float]], edges: list[Edge], *, exact: float = 0.01) -> None:
    boxes = [
        (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        for (x, y), (width, height) in zip(layout.centers, sizes, strict=True)
    ]
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert left >= -exact
        assert top >= -exact
        assert right <= layout.width + exact
        assert bottom <= layout.height + exact
        for other in boxes[number + 1 :]:
            assert other[0] >= right or other[2] <= left or other[1] >= bottom or other[3] <= top
    assert len(layout.paths) == len(edges)
    for (source, target), points in zip(edges, layout.paths, strict=True):
        assert len(points) % 3 == 1
        assert boxes[source][1] - exact <= points[0][1] <= boxes[source][3] + exact
        assert boxes[target][1] - exact <= points[-1][1] <= boxes[target][3] + exact
        assert boxes[source][3] < boxes[target][1]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[Edge]]:
    boxes = draw(st.integers(1, 14))
    size = st.tuples(st.floats(10, 400), st.floats(10, 80))
    edges = {(draw(st.integers(0, target - 1)), target) for target in range(1, boxes)}
    for _ in range(draw(st.integers(0, 10)) if boxes > 1 else 0):
        target = draw(st.integers(1, boxes - 1))
        edges.add((draw(st.integers(0, target - 1)), target))
    return [draw(size) for _ in range(boxes)], sorted(edges)


@given(graphs())
def test_no_box_lies_on_another_and_lines_lead_down(graph: tuple[list[tuple[float, float]], list[Edge]]) -> None:
    sizes, edges = graph
    check_layout(arrange_by_hand(sizes, edges), sizes, edges)


def test_a_line_that_jumps_runs_around_what_it_jumps_over() -> None:
    layout = arrange_by_hand(SIZES, EDGES)
    left = min(x - 150 for x, _ in layout.centers)
    assert min(x for x, _ in layout.paths[EDGES.index((0, 3))]) < left
    assert all(min(x for x, _ in path) > left for edge, path in zip(EDGES, layout.paths, strict=True) if edge != (0, 3))


def test_dot_lays_out_where_it_is_on_the_path(no_dot: Path) -> None:
    put_dot(no_dot, FAKE_DOT)
    layout = arrange(SIZES, EDGES, {"block": [1, 2]})
    assert layout.note == ""
    assert (layout.width, layout.height) == (360, 288)
    assert layout.centers == ((180, 36), (180, 108), (180, 180), (180, 252))
    assert layout.paths[0] == ((180, 72),) * 4
    check_is_whole(draw_model(describe("cnn_3conv"), name="by dot").svg)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("#!{python}\nimport sys; sys.exit(3)\n", "ended with 3"),
        ("#!{python}\nprint('graph 1 nonsense')\n", "no layout that can be read"),
        ("#!{python}\n", "no layout that can be read"),
        ("#!{python}\nprint('graph 1 2 2')\nprint('node 0 1 1')\n", "no layout that can be read"),
        (
            "#!{python}\nprint('graph 1 2 2')\nfor n in range(4): print('node', n, 'nan', 1)\n",
            "no layout that can be read",
        ),
        ("#!{python}\nimport sys; sys.stdout.buffer.write(b'\\xff\\xfe')\n", "no layout that can be read"),
        ("#!{python}\nimport time; time.sleep(30)\n", "took more than"),
        ("#!/nowhere/python\n", "No such file"),
    ],
)
def test_when_dot_fails_our_layout_is_there_and_says_why(
    no_dot: Path, monkeypatch: pytest.MonkeyPatch, text: str, note: str
) -> None:
    path = put_dot(no_dot, text)
    monkeypatch.setattr(laying, "DOT_TIMEOUT_S", 1)
    layout = arrange(SIZES, EDGES, {})
    own = arrange_by_hand(SIZES, EDGES)
    assert replace(layout, note="") == own
    assert layout.note.startswith(f"Graphviz is not used: {path} ")
    assert note in layout.note


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_the_real_dot_keeps_to_the_same_rules() -> None:
    dot = shutil.which("dot")
    assert dot is not None
    layout = arrange_by_dot(dot, SIZES, EDGES, [[1, 2]])
    check_layout(layout, SIZES, EDGES, exact=2)  # it rounds to whole points
