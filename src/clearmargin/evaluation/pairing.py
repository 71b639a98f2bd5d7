"""Which images two models can be compared on: the same image, of the test part of both, of a patient new to both.

Nothing is dropped in silence: every image that is left out is counted, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.errors import DataError, counted
from clearmargin.evaluation.foreign import Predictions

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pairing:
    """The images of both models, in the order of the first one's paths.

    `labels` is (N,), `probabilities` (2, N), `patients` (N,) numbers from 0, or None where they are unknown.
    `counts` has `test_a` and `test_b` (test images of each), `unmatched_a`, `unmatched_b` (not in the other's
    file), `trained_images` (in the other's train or validation part), `trained_patients` (images of a patient who
    is) and `compared`. `matched_by` says in words how the paths were matched.
    """

    a: Predictions
    b: Predictions
    labels: Integers
    probabilities: NDArray[np.float64]
    patients: Integers | None
    counts: dict[str, int]
    matched_by: str

    @property
    def n_units(self) -> int:
        """Number of patients, or of images where patients are unknown."""
        return len(self.labels) if self.patients is None else int(self.patients.max()) + 1

    @property
    def unit(self) -> str:
        return "image" if self.patients is None else "patient"

    @property
    def one_image_each(self) -> bool:
        """Whether each patient has one image."""
        return self.patients is not None and self.n_units == len(self.labels)


def pair_models(a: Predictions, b: Predictions) -> Pairing:
    """The test images of both models whose patients neither has seen in training.

    Raises:
        DataError: the paths do not fit, labels or patients contradict, nothing is left, or what is left has one
            class or one patient only.
    """
    rows_a, rows_b, depth = match_paths(a.table["path"], b.table["path"])
    if len(rows_a) == 0:
        raise DataError(
            f"no image of {a.name} is in {b.name} ('{a.table['path'].iloc[0]}', '{b.table['path'].iloc[0]}'): give "
            "predictions of the same images, under the same file names."
        )
    left, right = a.table.iloc[rows_a], b.table.iloc[rows_b]
    _check_agreement(a, b, left, right, exact=depth is None)
    tested_a, tested_b = _tested(left), _tested(right)
    both = tested_a & tested_b
    seen = both & _seen(a.table, b.table, left, right)
    kept = both & ~seen
    counts = {
        "test_a": int(_tested(a.table).sum()),
        "test_b": int(_tested(b.table).sum()),
        "unmatched_a": int(_tested(a.table).sum() - tested_a.sum()),
        "unmatched_b": int(_tested(b.table).sum() - tested_b.sum()),
        "trained_images": int((tested_a != tested_b).sum()),
        "trained_patients": int(seen.sum()),
        "compared": int(kept.sum()),
    }
    _check_some(a, b, counts)
    order = np.argsort(left["path"].to_numpy(dtype=str)[kept], kind="stable")
    left, right = left[kept].iloc[order], right[kept].iloc[order]
    pairing = Pairing(
        a,
        b,
        labels=left["label"].to_numpy(dtype=np.int64),
        probabilities=np.stack([rows["probability"].to_numpy(dtype=np.float64) for rows in (left, right)]),
        patients=_number_patients(a, b, left, right),
        counts=counts,
        matched_by="the same path" if depth is None else f"the last {counted(depth, 'part', 'parts')} of the path",
    )
    _check_comparable(pairing)
    return pairing


def match_paths(first: pd.Series, second: pd.Series) -> tuple[Integers, Integers, int | None]:
    """The rows (M,) of each that are one image, and how many last parts of the path tell; None for all of it.

    Where no path is in both, the roots differ: then the number of last parts that matches most images decides,
    of several the largest, and a name that is there twice matches nothing. File extensions are left out then.

    >>> first = pd.Series(["/a/P1/1.png", "/a/P2/1.png"])
    >>> rows, others, depth = match_paths(first, pd.Series(["P2/1.png", "P3/1.png"]))
    >>> rows.tolist(), others.tolist(), depth
    ([1], [0], 2)
    """
    paths = [_plain(first), _plain(second)]
    rows, others = _match(*paths)
    if len(rows):
        return rows, others, None
    parts = [column.str.replace(r"\.[A-Za-z]\w{1,4}$", "", regex=True).str.split("/") for column in paths]
    best = (rows, others)
    deepest, best_depth = min(int(column.map(len).max()) for column in parts), 1
    for depth in range(deepest, 0, -1):
        found = _match(*(column.str[-depth:].str.join("/") for column in parts))
        if len(found[0]) > len(best[0]):
            best, best_depth = found, depth
    return *best, best_depth


def _plain(paths: pd.Series) -> pd.Series:
    return paths.astype("str").str.replace("\\", "/", regex=False).str.replace(r"^(\./)+", "", regex=True)


def _match(first: pd.Series, second: pd.Series) -> tuple[Integers, Integers]:
    """Rows whose value is once in both."""
    alone = [np.flatnonzero(~column.duplicated(keep=False)) for column in (first, second)]
    place = pd.Index(second.to_numpy()[alone[1]]).get_indexer(pd.Index(first.to_numpy()[alone[0]]))
    return alone[0][place >= 0].astype(np.int64), alone[1][place[place >= 0]].astype(np.int64)


def _tested(rows: pd.DataFrame) -> Mask:
    return np.asarray(rows["split"] == "test", dtype=bool)


def _seen(a: pd.DataFrame, b: pd.DataFrame, left: pd.DataFrame, right: pd.DataFrame) -> Mask:
    """Where the patient of a matched image is in the train or validation part of either.

    The two may call a patient by different names, so that whoever has one image in a train or validation part
    of the other counts too.
    """
    not_tested = ~_tested(left) | ~_tested(right)
    trained = {patient for table in (a, b) for patient in table.loc[~_tested(table), "patient_id"].dropna()}
    trained_left = trained | set(left.loc[not_tested, "patient_id"].dropna())
    trained_right = trained | set(right.loc[not_tested, "patient_id"].dropna())
    seen = left["patient_id"].isin(trained_left).to_numpy() | right["patient_id"].isin(trained_right).to_numpy()
    return np.asarray(seen, dtype=bool)


def _check_agreement(a: Predictions, b: Predictions, left: pd.DataFrame, right: pd.DataFrame, *, exact: bool) -> None:
    differ = np.flatnonzero(left["label"].to_numpy() != right["label"].to_numpy())
    if len(differ):
        first = differ[0]
        count = counted(len(differ), "image has", "images have")
        raise DataError(
            f"{count} another label in {a.name} than in {b.name}, the first is "
            f"'{left['path'].iloc[first]}' ({left['label'].iloc[first]} and {right['label'].iloc[first]}): "
            "correct them; 1 is malignant in both."
        )
    if exact:
        return
    known = (left["patient_id"].notna().to_numpy() & right["patient_id"].notna().to_numpy()).astype(bool)
    differ = np.flatnonzero(known & (left["patient_id"].to_numpy() != right["patient_id"].to_numpy()))
    if len(differ):
        first = differ[0]
        raise DataError(
            f"'{left['path'].iloc[first]}' of {a.name} is of patient '{left['patient_id'].iloc[first]}', and "
            f"'{right['path'].iloc[first]}' of {b.name} of '{right['patient_id'].iloc[first]}': the names are alike, "
            "the images may not be; give both the same paths, or the same patient_id."
        )


def _check_some(a: Predictions, b: Predictions, counts: dict[str, int]) -> None:
    if counts["compared"]:
        return
    raise DataError(
        f"no image is left to compare {a.name} and {b.name} on: of {counts['test_a']:,} and {counts['test_b']:,} test "
        f"images, {counts['unmatched_a']:,} and {counts['unmatched_b']:,} are not in the other, "
        f"{counts['trained_images']:,} are in the train or validation part of the other, and "
        f"{counts['trained_patients']:,} are of a patient who is in such a part. Train both with the same split by "
        "patient (--split RUN/split.csv), or evaluate both on images that neither has seen."
    )


def _number_patients(a: Predictions, b: Predictions, left: pd.DataFrame, right: pd.DataFrame) -> Integers | None:
    """The patient of each image as a number, from the first of the two who knows them all; None where neither does."""
    known = [rows["patient_id"].to_numpy() for rows in (left, right) if rows["patient_id"].notna().all()]
    if not known:
        return None
    codes = [pd.factorize(names, sort=True)[0].astype(np.int64) for names in known]
    together = pd.DataFrame(dict(enumerate(codes))).drop_duplicates()
    if any(together[column].duplicated().any() for column in together):
        raise DataError(
            f"{a.name} and {b.name} do not agree which images are of one patient: correct patient_id, or leave it out "
            "of one of the two."
        )
    return codes[0]


def _check_comparable(pairing: Pairing) -> None:
    both = f"{pairing.a.name} and {pairing.b.name}"
    n_images = f"{len(pairing.labels):,} images of {both}"
    if len(np.unique(pairing.labels)) < 2:
        only = "malignant" if pairing.labels[0] else "benign"
        raise DataError(f"all of the {n_images} are {only}: give test images of both classes.")
    if pairing.n_units < 2:
        raise DataError(f"all of the {n_images} are of one patient: give test images of several.")
