import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from clearmargin.errors import ConfigError, DataError, ImageError
from clearmargin.report.write import write_report
from clearmargin.types import INTENDED_USE, OPTIMISTIC_STAMP

LoadImage = Callable[[str], NDArray[np.uint8]]
NAMES: Mapping[str, str] = {
    "AUROC": "auroc",
    "AUPRC": "auprc",
    "Sensitivity (recall)": "sensitivity",
    "Specificity": "specificity",
    "Balanced accuracy": "balanced_accuracy",
    "PPV (precision)": "ppv",
    "NPV": "npv",
    "F1": "f1",
    "Accuracy": "accuracy",
    "Brier score": "brier",
    "ECE": "ece",
}


def cells_of(table: list[list[str]], label: str) -> list[str]:
    """The cells after the first of the row that begins with a label."""
    (cells,) = [row[1:] for row in table if f"{row[0]} ".startswith(f"{label} ")]
    return cells


def test_the_page_is_one_file_that_asks_for_nothing(page: Any) -> None:
    assert not any(page.find(tag) for tag in ("script", "link", "iframe", "object", "embed", "form", "base"))
    for _, attributes, _ in page.elements:
        for name in ("src", "srcset", "data", "action", "poster", "background"):
            assert attributes.get(name, "data:image/png;base64,").startswith("data:image/png;base64,")
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "checklists/"))
        assert not [name for name in attributes if name.startswith("on")]
    assert set(re.findall(r"url\((.)", page.source)) <= {"#"}
    assert "@import" not in page.source
    assert "http" not in page.source.replace("http-equiv", "")


def test_the_policy_of_the_page_forbids_scripts_and_requests(page: Any) -> None:
    (policy,) = [a["content"] for _, a, _ in page.find("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_the_answer_comes_first_and_says_what_metrics_json_says(page: Any, metrics: dict[str, Any]) -> None:
    image = metrics["test"]["image"]
    low, high = image["auroc"]["ci"]
    assert page.texts("p.answer") == [
        f"On {image['n_images']} test images of {image['n_patients']} patients never seen in training, AUROC is "
        f"{image['auroc']['value']:.2f} (95 % interval {low:.2f}–{high:.2f}); at the stored operating point it finds "
        f"{image['sensitivity']['value'] * 100:.0f} % of malignant images and clears "
        f"{image['specificity']['value'] * 100:.0f} % of benign ones."
    ]
    assert page.source.index('class="answer"') < page.source.index("<table")


def test_every_figure_of_the_table_is_the_one_in_metrics_json(page: Any, metrics: dict[str, Any]) -> None:
    table = page.tables()[0]
    assert len(table) == 1 + len(NAMES)
    for label, name in NAMES.items():
        figure = metrics["test"]["image"][name]
        low, high = figure["ci"]
        assert cells_of(table, label)[:2] == [f"{figure['value']:.3f}", f"{low:.3f}–{high:.3f}"]


def test_the_splits_stand_side_by_side(page: Any, metrics: dict[str, Any]) -> None:
    table = page.tables()[1]
    splits = ["train", "validation", "test"]
    assert table[0] == ["Figure", *splits]
    for label in ("AUROC", "Accuracy", "Sensitivity (recall)", "PPV (precision)", "F1"):
        figures = [metrics[split]["image"][NAMES[label]] for split in splits]
        assert cells_of(table, label) == [f"{figure['value']:.3f}" for figure in figures]
    assert cells_of(table, "Loss") == [f"{metrics[split]['image']['loss']:.3f}" for split in splits]
    assert cells_of(table, "images") == ["720", "720", "600"]
    assert cells_of(table, "patients") == ["12", "12", "10"]


def test_the_stored_threshold_stands_beside_the_naive_one(page: Any, metrics: dict[str, Any]) -> None:
    table = page.tables()[2]
    assert table[0] == ["Figure", "stored (0.310)", "naive (0.5)"]
    for label in ("Sensitivity (recall)", "Specificity", "Balanced accuracy", "PPV (precision)", "NPV", "F1"):
        figures = [metrics["test"][key][NAMES[label]] for key in ("image", "image_at_0.5")]
        assert cells_of(table, label) == [f"{figure['value']:.3f}" for figure in figures]


def test_no_number_is_made_up_where_a_figure_is_undefined(report: Callable[..., Any]) -> None:
    page = report(
        changes={
            "test/image/ppv": {"value": None, "reason": "nothing was called malignant"},
            "test/image/f1": {"value": 0.5, "ci": None, "reason": "one patient"},
            "test/image/npv": {"value": 0.25, "ci": None, "reason": "one patient"},
            "test/image/auroc": {"value": None, "reason": "no image is malignant"},
        }
    )
    table = page.tables()[0]
    assert cells_of(table, "PPV (precision)")[:2] == ["—", "—"]
    assert cells_of(table, "F1")[:2] == ["0.500", "—"]
    assert "PPV (precision): — nothing was called malignant" in page.texts("p.reason")
    assert "NPV, F1: — one patient" in page.texts("p.reason")
    assert "AUROC is not defined (no image is malignant);" in page.texts("p.answer")[0]


def test_one_class_alone_has_no_curves_but_a_report(report: Callable[..., Any], predictions: pd.DataFrame) -> None:
    page = report(table=predictions[(predictions["split"] != "test") | (predictions["label"] == 0)])
    assert "AUROC is not defined (no malignant image)" in page.texts("p.answer")[0]
    assert "an undefined share of malignant images (no malignant image)" in page.texts("p.answer")[0]
    assert page.texts("figcaption").count("— no malignant image") == 2


def test_what_does_not_apply_to_patients_is_said_with_its_reason(page: Any) -> None:
    reason = "10 of 10 patients have both benign and malignant images, so a patient has no single label"
    assert f"— No figures by patient: {reason}." in page.texts("p.prose")


def test_figures_by_patient_are_shown_where_a_patient_has_one_label(
    report: Callable[..., Any], predictions: pd.DataFrame
) -> None:
    malignant = predictions["patient_id"].str[-1].astype(int) % 2
    page = report(table=predictions.assign(label=malignant))
    tables = [table for table in page.tables() if table[0][1:2] == ["Value"]]
    pooled = predictions[predictions["split"] == "test"].groupby("patient_id")["probability"].mean()
    truth = pooled.index.str[-1].astype(int) % 2
    assert cells_of(tables[-1], "AUROC")[0] == f"{roc_auc_score(truth, pooled):.3f}"
    assert "Each patient counted once" in page.texts("h3")
    assert "no patient has images of both classes" in page.texts("#patients")[0]


def test_an_honest_split_carries_no_stamp(page: Any, report: Callable[..., Any]) -> None:
    for each in (page, report(protocol="official")):
        assert OPTIMISTIC_STAMP not in each.source
        assert not each.find("aside")
        assert "patients never seen in training" in each.texts("p.answer")[0]


def test_an_image_level_split_carries_the_stamp_before_any_number(
    report: Callable[..., Any], predictions: pd.DataFrame
) -> None:
    both_sides = predictions.assign(patient_id=predictions["patient_id"].str[3:])
    page = report(protocol="image", table=both_sides)
    assert page.texts("p.stamp") == [OPTIMISTIC_STAMP]
    assert page.source.index(OPTIMISTIC_STAMP) < page.source.index('class="answer"')
    assert "10 of the 10 test patients also have images in training" in page.texts("aside")[0]
    assert "--by patient" in page.texts("aside")[0]
    assert "never seen in training" not in page.source


def test_patients_that_are_not_known_are_not_claimed_unseen(report: Callable[..., Any]) -> None:
    page = report(protocol="official", with_patients=False)
    assert "whose patients are not known" in page.texts("p.answer")[0]
    assert "never seen in training" not in page.source
    assert "patients of these images are not known" in page.texts("#patients")[0]
    assert "--patient-regex" in report(protocol="image", with_patients=False).texts("aside")[0]
    assert "Patients are unknown, so images were resampled" in page.texts("#sure")[0]


def test_an_official_split_that_shares_patients_says_so(report: Callable[..., Any], predictions: pd.DataFrame) -> None:
    shared = predictions.assign(patient_id=predictions["patient_id"].replace("TE-00", "TR-00"))
    page = report(protocol="official", table=shared)
    assert "1 patient of the test split also has images in training" in page.texts("aside")[0]
    assert OPTIMISTIC_STAMP not in page.source
    assert "never seen in training" not in page.texts("p.answer")[0]


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</svg><script>alert(1)</script>",
    "</title></style><script>alert(1)</script>",
    r"$\frac{1$ & ]]> {{ 7 * 7 }}",
    "患者-01 \N{RIGHT-TO-LEFT OVERRIDE} é",
    "javascript:alert(1)",
    "@patient0@",
    "' onmouseover='alert(1)",
    "{% raw %}",
]


def test_hostile_names_are_shown_as_text(report: Callable[..., Any], predictions: pd.DataFrame) -> None:
    def gone(path: str) -> NDArray[np.uint8]:
        raise ImageError("missing", path, HOSTILE[0])

    of_test = sorted(predictions.loc[predictions["split"] == "test", "patient_id"].unique())
    names = dict(zip(of_test, HOSTILE, strict=True))
    finding = {"kind": "x", "severity": "warning", "count": 1, "paths": HOSTILE}
    page = report(
        name="a&b <i>'",
        table=predictions.assign(
            patient_id=predictions["patient_id"].replace(names),
            path=[f"{HOSTILE[index % len(HOSTILE)]}_{index}.png" for index in range(len(predictions))],
        ),
        audit={
            "data": {"root": HOSTILE[0], "source": HOSTILE[1]},
            "flow": [{"step": HOSTILE[0], "count": 3}],
            "counts": {"images": 3, "patients": 1, "slides": 1, "benign": 1, "malignant": 2},
            "findings": [finding | {"message": text, "fix": text} for text in HOSTILE],
            "quarantine": [{"path": text, "kind": "x", "reason": text} for text in HOSTILE],
        },
        environment={"command": HOSTILE[0], "started": HOSTILE[1], "platform": HOSTILE[2], "seconds": {HOSTILE[3]: 1}},
        load_image=gone,
    )
    assert not page.find("script") + page.find("img")
    assert not [name for _, attributes, _ in page.elements for name in attributes if name.startswith("on")]
    assert page.texts("h1") == ["a&b <i>'"]
    assert set(HOSTILE) <= set(page.texts("th.id"))
    assert page.texts("pre.command") == [HOSTILE[0]]
    assert set(HOSTILE) <= set(page.texts("li"))


def test_an_image_that_cannot_be_read_is_a_placeholder_with_its_reason(
    report: Callable[..., Any], load_image: LoadImage
) -> None:
    asked: list[str] = []

    def every_other(path: str) -> NDArray[np.uint8]:
        asked.append(path)
        if len(asked) % 2:
            raise ImageError("missing", path, "no such file")
        return load_image(path)

    page = report(load_image=every_other)
    assert len(asked) == 12
    assert page.texts("div.placeholder") == ["no picture no such file"] * 6
    assert len(page.find("img")) == 6


def test_a_mistake_is_shown_with_probability_label_patient_and_file(page: Any, run: Path) -> None:
    rows = pd.read_csv(run / "predictions.csv").query("split == 'test' and label == 1 and decision == 'benign'")
    worst = rows.sort_values("probability").iloc[0]
    file_name = worst["path"].rpartition("/")[2]
    expected = f"{worst['probability']:.3f} malignant patient {worst['patient_id']} {file_name}"
    assert page.texts("li.card")[0] == expected
    assert page.texts("span.tally")[0] == str(len(rows))


def test_small_pictures_are_enlarged_pixel_by_pixel(page: Any) -> None:
    assert all("small" in attributes.get("class", "") for _, attributes, _ in page.find("img"))
    assert "image-rendering: pixelated" in page.texts("style")[0]


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("data", "1,570 files found"),
        ("data", "1,563 −7 images that open"),
        ("data", "7 files are cut short. Copy them again."),
        ("data", "b/1.png ends before its last row"),
        ("data", "1,560 images; 26 patients; 600 malignant (38.5 %); 960 benign."),
        ("methods", "by patient: no patient is in two splits; seed 11"),
        ("methods", "50 × 50 px; RGB; aspect ratio kept, padded (mirror); area interpolation"),
        ("methods", "divided by 255, minus 0.5, over 0.25"),
        ("methods", "residual; 123,456 parameters"),
        ("methods", "4 of at most 8 epochs"),
        ("methods", "weights of epoch 3 kept (best validation loss)"),
        ("methods", "temperature 1.250"),
        ("methods", "balanced; threshold 0.3100; the highest balanced accuracy on the validation split"),
        ("methods", "100 resamples of patients; only 10 patients: intervals from fewer than 20"),
        ("methods", "precision recall f1-score support benign 0."),
        ("reproduce", "clearmargin train data/idc --out runs/idc --seed 11"),
        ("reproduce", "Data sha256 " + "1" * 64),
        ("reproduce", "Split sha256 " + "5" * 64),
        ("reproduce", "Started 2025-03-04 05:06 UTC"),
        ("reproduce", "x86_64; 8 cores; 4 threads used"),
        ("reproduce", "torch 2.13.0, numpy 2.4.6"),
        ("reproduce", "train 1 min 15 s"),
    ],
)
def test_where_the_figures_come_from_is_told(section: str, told: str, page: Any) -> None:
    assert told in page.texts(f"#{section}")[0]


def test_the_split_table_counts_images_patients_and_classes(page: Any, run: Path) -> None:
    (table,) = [table for table in page.tables() if table[0][0] == "Split"]
    for split, rows in pd.read_csv(run / "split.csv").groupby("split"):
        share = f"{100 * rows['label'].mean():.1f} %"
        assert cells_of(table, str(split))[:3] == [f"{len(rows):,}", str(rows["patient_id"].nunique()), share]


def test_the_gravest_finding_comes_first(page: Any) -> None:
    assert page.texts("span.badge") == ["warning", "note"]


def test_settings_that_are_not_the_default_are_marked(page: Any) -> None:
    assert page.texts("tr.changed") == ["seed 11", "train.epochs 8", "train.patience 3"]


def test_the_intended_use_is_stated(page: Any) -> None:
    assert INTENDED_USE in page.texts("footer")[0]


def test_the_same_run_gives_the_same_bytes(run: Path, load_image: LoadImage) -> None:
    before = (run / "report.html").read_bytes()
    assert write_report(run, load_image=load_image).read_bytes() == before


def test_a_report_that_fails_leaves_the_old_one_and_nothing_half_written(build_run: Callable[..., Any]) -> None:
    def broken(path: str) -> NDArray[np.uint8]:
        raise RuntimeError("a bug")

    folder = build_run().write()
    (folder / "report.html").write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError, match="a bug"):
        write_report(folder, load_image=broken)
    assert (folder / "report.html").read_text(encoding="utf-8") == "old"
    assert not list(folder.glob("*.partial")) + list(folder.glob(".*"))


def test_figures_and_predictions_alone_are_enough(report: Callable[..., Any], predictions: pd.DataFrame) -> None:
    page = report(
        table=predictions[predictions["split"] == "test"],
        without=["config.toml", "environment.json", "audit.json", "split.csv", "history.csv"],
    )
    assert page.texts("p.answer")[0].startswith("On 600 external images of 10 patients, AUROC is 0.")
    assert "never seen in training" not in page.source


def test_figures_from_the_validation_split_are_called_optimistic(
    report: Callable[..., Any], predictions: pd.DataFrame
) -> None:
    page = report(table=predictions[predictions["split"] != "test"])
    assert page.texts("p.answer")[0].startswith("On 720 validation images of 12 patients never seen in training")
    assert "There is no test split" in page.texts("#sure")[0]


@pytest.mark.parametrize("part", ["audit", "environment"])
def test_a_file_without_its_keys_leaves_gaps_and_is_no_error(part: str, report: Callable[..., Any]) -> None:
    assert report(**{part: {}}).texts("p.answer")[0].startswith("On 600 test images")


def test_a_folder_that_is_no_run_is_refused_with_what_is_missing(tmp_path: Path, load_image: LoadImage) -> None:
    with pytest.raises(DataError, match=r"not a finished run, metrics\.json and predictions\.csv are needed"):
        write_report(tmp_path, load_image=load_image)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.json", "{", r"metrics\.json: not valid JSON"),
        ("audit.json", "[]", r"audit\.json: holds a list, not an object"),
        ("metrics.json", "{}", r"metrics\.json: has no evaluated split or no operating point"),
        ("split.csv", "path,label\na,1\n", r"split\.csv: .*patient_id"),
        (
            "split.csv",
            "path,patient_id,label,split\na,p,1,val\n",
            r"the split 'val' is none of train, validation, test",
        ),
        ("history.csv", "epoch,train_loss\nx,1\n", r"history\.csv: cannot be read as a table"),
    ],
)
def test_a_broken_file_is_named_with_how_to_mend_it(
    name: str, text: str, message: str, build_run: Callable[..., Any], load_image: LoadImage
) -> None:
    folder = build_run().write()
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        write_report(folder, load_image=load_image)


def test_an_unknown_setting_is_refused_by_name(build_run: Callable[..., Any], load_image: LoadImage) -> None:
    folder = build_run().write()
    (folder / "config.toml").write_text("epochz = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="epochz"):
        write_report(folder, load_image=load_image)
