"""The training images most like a new one, as the network sees both.

The distance is one minus the cosine of the angle between the features of two images, seen from their mean and
reduced (`training/cases.py`): how alike the model finds them, which is not how alike they look. It is computed as
good as exactly: neither the order of the images nor the size of a batch matters, and an image finds itself at 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import UsageError
from clearmargin.types import LABEL_NAMES, Label, SimilarCase

if TYPE_CHECKING:
    from clearmargin.bundle.cases import Cases

MOST_SIMILAR = 50


class SimilarCases:
    """The cases of a bundle, ready to be searched: every one is compared, in one product of matrices.

    Args:
        cases: of the bundle.
        pseudonymous: their ids are pseudonyms, which those of new images are not.
    """

    def __init__(self, cases: Cases, *, pseudonymous: bool) -> None:
        self.cases = cases
        self._pseudonymous = pseudonymous
        self._features = cases.features.astype(np.float64)  # products of 11 bits add up without any rounding
        self._lengths = np.linalg.norm(self._features, axis=1)

    def find(
        self, features: NDArray[np.float32], patients: Sequence[str | None], k: int
    ) -> list[tuple[SimilarCase, ...]]:
        """For each image its `k` nearest cases, nearest first; of equally near ones the first come first.

        Args:
            features: (B, D) of the network.
            patients: B, the images' patient_id.
            k: how many, all of them where there are fewer.
        """
        distances = self.distances(features)
        k = min(k, len(self.cases))
        farthest = np.partition(distances, k - 1, axis=1)[:, k - 1]
        found = []
        for row, limit, patient in zip(distances, farthest, patients, strict=True):
            near = np.flatnonzero(row <= limit)
            nearest = near[np.argsort(row[near], kind="stable")][:k]
            found.append(tuple(self._similar(int(case), float(row[case]), patient) for case in nearest))
        return found

    def distances(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(B, N) from 0 to 2, of images with the network's features (B, D) to each case."""
        directions = self.cases.project(features).astype(np.float64)
        lengths = np.linalg.norm(directions, axis=1)[:, None] * self._lengths
        cosines = np.divide(directions @ self._features.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        distances: NDArray[np.float64] = np.clip(1 - cosines, 0, 2)
        return distances

    def _similar(self, case: int, distance: float, patient: str | None) -> SimilarCase:
        row = self.cases.rows[case]
        same: bool | None = None
        if patient is not None and row.patient_id is not None:
            equal = patient == row.patient_id
            same = True if equal else None if self._pseudonymous else False
        label: Label = 1 if row.label == LABEL_NAMES[1] else 0
        return SimilarCase(case, row.patient_id, row.slide_id, row.path, label, distance, same)


def check_similar(k: int) -> None:
    """Passes when so many similar cases can be asked for; 0 is none.

    Raises:
        UsageError: they cannot.
    """
    if not 0 <= k <= MOST_SIMILAR:
        raise UsageError(f"{k} similar cases cannot be shown; ask for 1 to {MOST_SIMILAR}.")


def similar_rows(similar: Sequence[SimilarCase]) -> list[dict[str, str | float | bool | None]]:
    """The cases as every output format has them."""
    return [
        {
            "patient_id": case.patient_id,
            "slide_id": case.slide_id,
            "path": case.path,
            "label": LABEL_NAMES[case.label],
            "distance": round(case.distance, 4),
            "same_patient": case.same_patient,
        }
        for case in similar
    ]


def similar_words(similar: Sequence[SimilarCase]) -> str:
    """The cases in a few words.

    >>> near = SimilarCase(0, "P-031", None, None, 1, 0.1, None)
    >>> similar_words([near, SimilarCase(1, "P-002", None, None, 0, 0.3, True)])
    'similar: 1 malignant, 1 benign (nearest: malignant, P-031, 0.10); 1 of the same patient'
    """
    if not similar:
        return "similar: none"
    counts = Counter(LABEL_NAMES[case.label] for case in similar)
    nearest = similar[0]
    names = [LABEL_NAMES[nearest.label], *filter(None, [nearest.patient_id]), f"{nearest.distance:.2f}"]
    text = ", ".join(f"{counts[name]:,} {name}" for name in reversed(LABEL_NAMES) if counts[name])
    same = sum(case.same_patient is True for case in similar)
    return f"similar: {text} (nearest: {', '.join(names)})" + (f"; {same:,} of the same patient" if same else "")
