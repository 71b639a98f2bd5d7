"""Groups of images are described, and compared only as far as patients allow."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clearmargin.decision import decide, probability
from clearmargin.errors import DataError, UnknownName
from clearmargin.evaluation import metrics
from clearmargin.evaluation.subgroups import subgroup_figures
from clearmargin.types import MANIFEST_COLUMNS

NAMED = ("view", "patient_id")


def manifest_of(frame: pd.DataFrame, **columns: object) -> pd.DataFrame:
    table = pd.DataFrame({name: [None] * len(frame) for name in MANIFEST_COLUMNS}, dtype=object)
    return table.assign(path=frame["path"].to_numpy(), label=frame["label"].to_numpy(), source="idc", **columns)


def study(
    seed: int, *, n_patients: int = 40, effect: float = 0.0, images_each: int = 12
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Patients of two sites; at the second the classes are `effect` nearer to each other."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), images_each)
    sites = np.where(patients % 2 == 0, "Graz", "Linz")
    labels = (rng.random(len(patients)) < rng.beta(2, 2, size=n_patients)[patients]).astype(np.int64)
    apart = np.where(sites == "Linz", 3.0 - effect, 3.0)
    logits = apart * (labels - 0.5) + rng.normal(size=n_patients)[patients] + rng.normal(size=len(patients))
    frame = pd.DataFrame(
        {
            "path": [f"{number:05d}.png" for number in range(len(patients))],
            "patient_id": [f"P{patient:03d}" for patient in patients],
            "slide_id": None,
            "x": None,
            "y": None,
            "split": "test",
            "label": labels,
            "logit": logits,
            "probability": probability(logits),
            "decision": decide(probability(logits), 0.5),
        }
    )
    return frame, manifest_of(frame, site=sites)


def figures_of(frame: pd.DataFrame, manifest: pd.DataFrame, **arguments: Any) -> dict[str, Any]:
    return subgroup_figures(frame, manifest, threshold=0.5, **({"resamples": 100, "seed": 0} | arguments))


class TestGroups:
    def test_each_figure_is_that_of_the_groups_images(self) -> None:
        frame, manifest = study(0)
        found = figures_of(frame, manifest)
        assert list(found) == ["site"]  # every other column says the same of all images
        assert [group["value"] for group in found["site"]["groups"]] == ["Graz", "Linz"]
        for group in found["site"]["groups"]:
            rows = frame[(manifest["site"] == group["value"]).to_numpy()]
            labels, probabilities = rows["label"].to_numpy(), rows["probability"].to_numpy()
            table = metrics.confusion(labels, metrics.calls(probabilities, 0.5))
            assert (group["n_images"], group["n_patients"]) == (240, 20)
            assert group["n_malignant"] == labels.sum()
            assert group["auroc"]["value"] == pytest.approx(metrics.auroc(labels, probabilities))
            assert group["sensitivity"]["value"] == pytest.approx(float(metrics.sensitivity(table)))
            assert group["specificity"]["value"] == pytest.approx(float(metrics.specificity(table)))
            for figure in ("auroc", "sensitivity", "specificity"):
                low, high = group[figure]["ci"]
                assert 0 <= low < group[figure]["value"] < high <= 1

    def test_the_order_of_rows_does_not_matter_and_json_takes_it(self) -> None:
        frame, manifest = study(1)
        shuffled = figures_of(frame.sample(frac=1, random_state=0), manifest.sample(frac=1, random_state=1))
        found = figures_of(frame, manifest)
        assert found == shuffled
        assert json.loads(json.dumps(found, allow_nan=False)) == found

    def test_names_are_ordered_as_people_do_and_unknown_comes_last(self) -> None:
        frame, manifest = study(0)
        values = np.resize(np.array(["400", "40", None, "100", ""], dtype=object), len(frame))
        groups = figures_of(frame, manifest.assign(magnification=values))["magnification"]["groups"]
        assert [group["value"] for group in groups] == ["40", "100", "400", "unknown"]
        assert groups[-1]["n_images"] == (pd.isna(values) | (values == "")).sum()

    def test_sizes_are_classes_that_double(self) -> None:
        frame, manifest = study(0)
        widths = np.resize([50, 50, 5, 3328], len(frame))
        heights = np.resize([50, 46, 50, 4096], len(frame))
        column = figures_of(frame, manifest.assign(width=widths, height=heights))["size"]
        assert [group["value"] for group in column["groups"]] == ["8 to 15 px", "32 to 63 px", "2048 to 4095 px"]
        assert "square of the image's area" in column["note"]

    def test_auto_leaves_out_columns_that_cannot_be_compared(self) -> None:
        frame, manifest = study(0)
        by_class = np.where(frame["label"] == 1, "MLO", "CC")
        one_each = [f"S{number}" for number in range(len(frame))]
        assert set(figures_of(frame, manifest.assign(view=by_class, side=one_each))) == {"site"}

    def test_a_column_that_is_named_is_looked_at_whatever_it_holds(self) -> None:
        frame, manifest = study(0)
        by_class = np.where(frame["label"] == 1, "MLO", "CC")
        found = figures_of(frame, manifest.assign(view=by_class, patient_id=frame["patient_id"]), columns=NAMED)
        cc, mlo = found["view"]["groups"]
        assert cc["auroc"] == {"value": None, "ci": None, "reason": "no malignant image"}
        assert mlo["specificity"]["value"] is None
        assert found["view"]["difference"]["auroc"]["p"] is None
        assert "cannot be compared" in found["view"]["difference"]["auroc"]["text"]
        assert "too many to compare" in found["patient_id"]["difference"]["auroc"]["text"]
        assert len(found["patient_id"]["groups"]) == 40

    def test_unknown_patients_are_said(self) -> None:
        frame, manifest = study(0)
        found = figures_of(frame.assign(patient_id=None), manifest)["site"]
        assert found["groups"][0]["n_patients"] is None
        assert "patients are unknown" in found["note"]

    def test_what_does_not_fit_is_refused(self) -> None:
        frame, manifest = study(0)
        with pytest.raises(UnknownName, match="did you mean 'site'"):
            figures_of(frame, manifest, columns=["sites"])
        with pytest.raises(DataError, match=r"1 of 480 images .* not in the manifest, the first is '00000\.png'"):
            figures_of(frame, manifest.iloc[1:])
        with pytest.raises(DataError, match=r"'00003\.png' is twice"):
            figures_of(frame, pd.concat([manifest, manifest.iloc[[3]]]))


class TestDifference:
    def test_none_is_claimed_95_times_in_100_where_there_is_none(self) -> None:
        studies = 60
        claimed = 0
        for seed in range(studies):
            difference = figures_of(*study(seed), resamples=60)["site"]["difference"]
            claimed += any(entry["p"] is not None and entry["p"] < 0.05 for entry in difference.values())
        # Any of three figures; 60 studies leave a standard error of 3 %.
        assert claimed / studies <= 0.11

    def test_one_is_found_and_named_where_there_is_one(self) -> None:
        found = [
            figures_of(*study(seed, effect=2.0), resamples=60)["site"]["difference"]["auroc"] for seed in range(12)
        ]
        assert sum(entry["p"] < 0.05 for entry in found) >= 11
        text = next(entry["text"] for entry in found if entry["p"] < 0.05)
        assert text.startswith("The AUROC differs between 'Graz' (0.9")
        assert "corrected p" in text

    def test_without_evidence_the_sentence_says_so(self) -> None:
        difference = figures_of(*study(0))["site"]["difference"]
        assert difference["auroc"]["p"] > 0.05
        assert difference["auroc"]["text"].startswith("No evidence that the AUROC differs between groups of site (sm")

    def test_many_groups_make_a_claim_harder(self) -> None:
        frame, manifest = study(3, effect=2.0)
        two = figures_of(frame, manifest)["site"]
        number = frame["patient_id"].str.slice(1).astype(int).to_numpy()
        eight = figures_of(frame, manifest.assign(site=[f"{k % 8}" for k in number]))["site"]
        assert "corrected (Holm) for 3 comparisons" in two["note"]
        assert "corrected (Holm) for 84 comparisons" in eight["note"]
        assert eight["difference"]["auroc"]["p"] > two["difference"]["auroc"]["p"]

    def test_patients_in_both_groups_cancel_out(self) -> None:
        """Where each patient has images of both groups, what makes a patient hard is no noise in the difference."""
        frame, manifest = study(5, n_patients=24)
        views = np.where(np.arange(len(frame)) % 2 == 0, "CC", "MLO")
        hard = np.repeat(np.random.default_rng(5).normal(scale=3.0, size=24), 12)
        worse = frame.assign(logit=frame["logit"] + hard - np.where(views == "MLO", 1.5 * frame["label"], 0.0))
        worse = worse.assign(probability=probability(worse["logit"].to_numpy()))
        found = figures_of(worse, manifest.assign(site=None, view=views))["view"]
        assert "24 of 24 patients have images in several groups" in found["note"]
        strangers = worse.assign(patient_id=worse["patient_id"] + views)
        apart = figures_of(strangers, manifest.assign(site=None, view=views))["view"]
        assert "several groups" not in apart["note"]
        assert found["difference"]["sensitivity"]["p"] < 0.05
        assert found["difference"]["sensitivity"]["p"] < 0.5 * apart["difference"]["sensitivity"]["p"]

    def test_a_small_group_without_an_error_proves_nothing(self) -> None:
        frame, manifest = study(2)
        few = frame["patient_id"].isin(["P000", "P002", "P004"]).to_numpy()
        flawless = np.where(few, np.where(frame["label"] == 1, 0.99, 0.01), frame["probability"])
        found = figures_of(frame.assign(probability=flawless), manifest.assign(site=np.where(few, "new", "old")))[
            "site"
        ]
        assert found["groups"][0]["sensitivity"]["value"] == 1.0
        assert all(entry["p"] is None or entry["p"] > 0.05 for entry in found["difference"].values())
