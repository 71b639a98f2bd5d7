import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from clearmargin.report.patients import FEW_IMAGES, patient_table


def rows(patient: str | None, labels: list[int], probabilities: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": patient, "label": labels, "probability": probabilities})


def test_each_patient_has_the_figures_of_its_own_images() -> None:
    rng = np.random.default_rng(1)
    frame = pd.concat(
        [rows(name, rng.integers(0, 2, 40).tolist(), rng.random(40).tolist()) for name in ("A", "B", "C")]
    )
    table = patient_table(frame, 0.4).set_index("patient_id")
    for name, own in frame.groupby("patient_id"):
        called = own["probability"] >= 0.4
        assert table.loc[name, "auroc"] == roc_auc_score(own["label"], own["probability"])
        assert table.loc[name, "true_share"] == own["label"].mean()
        assert table.loc[name, "called_share"] == called.mean()
        assert table.loc[name, "correct_share"] == (called == own["label"]).mean()
        assert table.loc[name, "n_images"] == 40


def test_auroc_within_a_patient_of_one_class_is_undefined() -> None:
    table = patient_table(rows("A", [1, 1], [0.2, 0.9]), 0.5)
    assert np.isnan(table.loc[0, "auroc"])
    assert table.loc[0, "correct_share"] == 0.5


def test_worst_patient_comes_first_and_those_without_auroc_last() -> None:
    frame = pd.concat(
        [
            rows("good", [0, 1], [0.1, 0.9]),
            rows("one class", [1, 1], [0.1, 0.1]),
            rows("bad", [0, 1], [0.9, 0.1]),
        ]
    )
    assert patient_table(frame, 0.5)["patient_id"].tolist() == ["bad", "good", "one class"]


def test_a_figure_from_few_images_of_the_rarer_class_is_marked() -> None:
    many = FEW_IMAGES * 3
    frame = pd.concat(
        [
            rows("few", [1] * (FEW_IMAGES - 1) + [0] * many, [0.5] * (many + FEW_IMAGES - 1)),
            rows("enough", [1] * FEW_IMAGES + [0] * many, [0.5] * (many + FEW_IMAGES)),
        ]
    )
    assert patient_table(frame, 0.5).set_index("patient_id")["few"].to_dict() == {"few": True, "enough": False}


def test_images_without_a_patient_have_no_row() -> None:
    assert patient_table(rows(None, [0, 1], [0.1, 0.9]), 0.5).empty
