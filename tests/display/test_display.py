"""What notebooks show: true, bounded, escaped, without requests, and never by colour alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.bundle.small_bundle import every_choice, write_working
from tests.report.conftest import RunBuilder

import clearmargin
from clearmargin.decision import Abstention
from clearmargin.display import RENDERERS, page
from clearmargin.images.preprocess import Preprocessing
from clearmargin.predict.predictor import Predictor, load_bundle
from clearmargin.tables import ComparisonTable, ExplanationTable, PredictionTable, SplitTable
from clearmargin.types import OPTIMISTIC_STAMP, Finding
from clearmargin.workflow import Run

HOSTILE = "<script>alert(1)</script>&\"'.png"


class Seen(HTMLParser):
    """Every tag with its attributes, and the text between them."""

    def __init__(self, html: str | None) -> None:
        super().__init__()
        assert html is not None
        self.html = html
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._text: list[str] = []
        self._styles = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._styles = tag == "style"

    def handle_data(self, data: str) -> None:
        self._text.append("" if self._styles else data)

    @property
    def text(self) -> str:
        return "".join(self._text)

    def images(self) -> list[str]:
        return [values["src"] for tag, values in self.tags if tag == "img"]

    def check(self, most: int = 60_000) -> Seen:
        """Passes when nothing runs, nothing is asked for, and the size is bounded."""
        assert {tag for tag, _ in self.tags} <= {
            *("div", "style", "p", "table", "thead", "tbody", "tr", "th", "td", "span", "b", "br", "img"),
            *("figure", "figcaption", "a", "progress"),
        }
        assert not [name for _, values in self.tags for name in values if name.startswith("on")]
        assert all(source.startswith("data:image/") for source in self.images())
        assert not re.search(r"https?:|@import|url\(", self.html)
        assert all(values.get("alt") for tag, values in self.tags if tag == "img")
        assert len(self.html) < most
        return self


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    bundle = tmp_path_factory.mktemp("model") / "bundle"
    choices = every_choice() | {"conformal": Abstention(coverage=0.9, low=0.4, high=0.6, n_units=40, unit="patient")}
    write_working(bundle, name="cbis_ddsm", spec=Preprocessing(width=24, height=24), **choices)
    return load_bundle(bundle, gate=False)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    names = [f"P{number}_{number}.png" for number in range(14)]
    for name in names:
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp_path / name)
    return [tmp_path / name for name in names]


def test_a_manifest_counts_by_class_patient_and_site_and_shows_images(make_folder: Callable[..., Path]) -> None:
    manifest = clearmargin.audit(make_folder(patients=5, per_class=3)).manifest
    site = ["north"] * 10 + ["<b>south"] * 20
    seen = Seen(replace(manifest, frame=manifest.frame.assign(site=site))._repr_html_()).check()
    assert "30 images (15 benign, 15 malignant) of 5 patients" in seen.text
    assert "site north10" in seen.text
    assert "site <b>south20" in seen.text
    assert len(seen.images()) == 8
    assert "\n" not in repr(manifest)


def test_an_audit_shows_the_gravest_finding_first_with_its_fix(make_folder: Callable[..., Path]) -> None:
    audit = clearmargin.audit(make_folder(patients=4, per_class=2))
    evil = Finding("<b>kind", "blocking", f"the first is '{HOSTILE}'\n\x1b[2J", "Mend <i>it</i>.", (HOSTILE,) * 5000)
    many = (*audit.findings, *(replace(evil, severity="note") for _ in range(50)), evil)
    seen = Seen(replace(audit, findings=many)._repr_html_()).check()
    assert "1 finding blocks training." in seen.text
    assert seen.text.index("blocking") < seen.text.index("note")
    assert "Fix: Mend <i>it</i>." in seen.text
    assert "more findings in .findings" in seen.text
    assert "\x1b" not in seen.html


def test_a_split_says_whether_a_patient_is_in_two_parts(make_folder: Callable[..., Path]) -> None:
    split = clearmargin.split(make_folder(patients=8))
    assert type(split) is SplitTable
    assert "No patient is in two parts." in Seen(split._repr_html_()).check().text
    crossing = split.assign(split=["train", "test"] * (len(split) // 2))
    assert "8 patients are in more than one part." in Seen(SplitTable(crossing)._repr_html_()).text


def test_augmentations_are_those_of_training(make_folder: Callable[..., Path]) -> None:
    data = make_folder(patients=4, px=16)
    images = clearmargin.show_augmentations(data, recipe="cancernet", n=4, times=3)
    assert images.changed.shape == (4, 3, 48, 48, 3)
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert "rotate degrees 20" in repr(images)
    assert len(Seen(images._repr_html_()).check().images()) == 16
    again = clearmargin.show_augmentations(data, recipe="cancernet", n=4, times=3)
    np.testing.assert_array_equal(images.changed, again.changed)
    none = clearmargin.show_augmentations(data, recipe="larger_model", n=2, times=2)
    np.testing.assert_array_equal(none.changed, np.repeat(none.originals[:, None], 2, axis=1))
    assert "changes nothing" in Seen(none._repr_html_()).text


def test_a_run_shows_its_figures_as_its_report_writes_them(tmp_path: Path) -> None:
    folder = RunBuilder(tmp_path / "run").write()
    (folder / "report.html").write_text("")
    run = Run(folder)
    seen = Seen(run._repr_html_()).check(120_000)
    auroc = run.metrics["test"]["image"]["auroc"]
    assert f"{auroc['value']:.3f}{auroc['ci'][0]:.3f}–{auroc['ci'][1]:.3f}" in seen.text
    assert "95\xa0% over patients" in seen.text
    assert len(seen.images()) == 2
    assert OPTIMISTIC_STAMP not in seen.text
    assert repr(run).startswith("Run in ")


def test_a_run_split_by_image_shows_the_stamp(tmp_path: Path) -> None:
    seen = Seen(Run(RunBuilder(tmp_path / "run", protocol="image").write())._repr_html_()).check(120_000)
    assert seen.text.index(OPTIMISTIC_STAMP) < seen.text.index("AUROC")


def test_a_report_below_the_working_directory_is_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunBuilder(tmp_path / "a run").write()
    (folder / "report.html").write_text("")
    monkeypatch.chdir(tmp_path)
    links = [values["href"] for tag, values in Seen(Run(folder)._repr_html_()).tags if tag == "a"]
    assert links == ["a%20run/report.html"]
    assert str(tmp_path) not in Run(folder)._repr_html_()


def test_a_run_whose_files_are_gone_says_so_in_a_line(tmp_path: Path) -> None:
    assert "not a finished run" in Seen(Run(tmp_path)._repr_html_()).check().text


def test_a_predictor_says_how_it_decides(predictor: Predictor) -> None:
    seen = Seen(predictor._repr_html_()).check()
    assert "malignant from 0.432; cannot tell from 0.400 to 0.600 (dashed)" in seen.text
    assert "0.501 (95\xa0% interval 0.401–0.601)" in seen.text
    assert repr(predictor).startswith("Predictor of ")


def test_predictions_show_word_shape_and_place_of_each(predictor: Predictor, pictures: list[Path]) -> None:
    table = predictor.predict([*pictures[:3], "gone.png"])
    table.loc[0, ["decision", "probability"]] = "malignant", 0.93
    table.loc[1, ["decision", "probability"]] = "benign", 0.04
    table.loc[2, ["decision", "probability"]] = "abstain", 0.5
    seen = Seen(table._repr_html_()).check()
    for shape, word in page.DECISIONS.values():
        assert f"{shape} {word}" in seen.text
    assert "4 images: 1 malignant, 1 benign, 1 cannot tell, 1 refused" in seen.text
    alternatives = [values["alt"] for tag, values in seen.tags if tag == "img"]
    assert "probability 0.930; cannot tell from 0.400 to 0.600; malignant from 0.432" in alternatives
    assert "no picture" in seen.text


def test_many_predictions_of_hostile_names_stay_small_and_harmless(predictor: Predictor, pictures: list[Path]) -> None:
    evil = pictures[0].rename(pictures[0].with_name(HOSTILE.replace("/", "")))
    seen = Seen(predictor.predict([evil, *pictures[1:]] * 40)._repr_html_()).check(100_000)
    assert "<script>alert(1)" in seen.text
    assert "more rows" in seen.text


def test_a_table_is_pandas_whatever_is_done_with_it(predictor: Predictor, pictures: list[Path], tmp_path: Path) -> None:
    import pickle

    table = predictor.predict(pictures[:3])
    assert type(table) is PredictionTable
    pd.testing.assert_frame_equal(table.plain(), table)
    pd.testing.assert_frame_equal(table, table.plain())
    made = [table[table["probability"] > 0], table.head(2), table.copy(), table.drop(columns="x"), pd.concat([table])]
    assert {type(each) for each in [*made, pickle.loads(pickle.dumps(table)), table.plain()]} == {pd.DataFrame}
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(table)), table.plain())
    table.to_csv(tmp_path / "out.csv", index=False)
    table.to_parquet(tmp_path / "out.parquet")
    assert pd.read_csv(tmp_path / "out.csv")["path"].tolist() == table["path"].tolist()
    assert table.groupby("decision").size().sum() == 3


@pytest.mark.parametrize(
    "table",
    [
        PredictionTable(pd.DataFrame({"path": ["a"]})),
        SplitTable(pd.DataFrame({"path": ["a"]})),
        ComparisonTable(pd.DataFrame({"a": ["x"]})),
        ExplanationTable(pd.DataFrame({"path": ["a"]})),
    ],
    ids=lambda table: type(table).__name__,
)
def test_a_table_that_lost_its_columns_is_shown_as_any_other(table: pd.DataFrame) -> None:
    assert table._repr_html_() == pd.DataFrame(table)._repr_html_()


def test_a_comparison_shows_the_verdict_and_the_differences(tmp_path: Path) -> None:
    runs = [RunBuilder(tmp_path / name).write() for name in ("first", "second")]
    table = clearmargin.compare(runs, resamples=40)
    assert type(table) is ComparisonTable
    seen = Seen(table._repr_html_()).check()
    assert "No evidence of a difference in AUROC" in seen.text
    assert table.attrs["models"][0]["letter"] == "A"


def test_explanations_show_the_pictures_that_were_written(
    predictor: Predictor, pictures: list[Path], tmp_path: Path
) -> None:
    explained = clearmargin.explain(predictor.bundle.folder, [pictures[0], "gone.png"], tmp_path / "out", gate=False)
    seen = Seen(explained._repr_html_()).check(200_000)
    assert len(seen.images()) == 1
    assert "✕ Refused gone.png" in seen.text
    one = clearmargin.load_explainer(predictor.bundle.folder, gate=False).explain(np.zeros((24, 24, 3), np.uint8))
    assert one._repr_png_()[:4] == b"\x89PNG"


def test_every_renderer_is_there_and_every_class_is_known_by_its_name() -> None:
    import importlib

    from clearmargin.shown import Shown

    for place in RENDERERS.values():
        module, function = place.split(".")
        assert callable(getattr(importlib.import_module(f"clearmargin.display.{module}"), function))
    importlib.import_module("clearmargin.training.augmented")

    def below(kind: type) -> set[str]:
        return {kind.__name__, *(name for each in kind.__subclasses__() for name in below(each))}

    assert below(Shown) - {"Shown", "ShownTable"} == set(RENDERERS)
