"""BreaKHis: pieces of breast tumours under the microscope at 40, 100, 200 and 400 times, in any folders.

A name such as `SOB_B_A-14-22549AB-100-027.png` gives the class, the type of tumour, the slide and the
magnification. Source: Spanhol et al. 2016. The patient is the year and the number of the slide: the letters
behind it tell apart slides of one patient, which the set's own count of 82 patients takes for several.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources.findings import (
    absolute_paths,
    count_by_folder,
    file_findings,
    listed,
    other_file_findings,
)
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.sources.recognition import has_named_images
from clearmargin.data.walk import split_of_folders, walk_files
from clearmargin.errors import DataError, counted
from clearmargin.images.names import BreakhisName, parse_breakhis_name
from clearmargin.images.read import is_image
from clearmargin.types import Finding

Row = tuple[str, BreakhisName]


def recognises(path: Path) -> bool:
    """Most of the first images have BreaKHis names."""
    return has_named_images(path, parse_breakhis_name)


def read(path: Path, options: SourceOptions = SourceOptions()) -> Manifest:
    """The manifest of the folder; files with other names are left out and reported.

    Raises:
        DataError: a magnification is asked for that no image has.
    """
    files = list(walk_files(path))
    images = [name for name in files if is_image(name)]
    parsed = {name: parse_breakhis_name(name.rpartition("/")[2]) for name in images}
    rows = [(name, facts) for name, facts in parsed.items() if facts is not None]
    unlabelled = [name for name, facts in parsed.items() if facts is None]
    kept, magnification = _choose_magnifications(path, rows, options.magnification)
    return build_manifest(
        {
            "path": [str(path / name) for name, _ in kept],
            "label": [facts.label for _, facts in kept],
            "patient_id": [facts.patient_id for _, facts in kept],
            "slide_id": [facts.slide_id for _, facts in kept],
            "official_split": [split_of_folders(name) for name, _ in kept],
            "magnification": [str(facts.magnification) for _, facts in kept],
        },
        root=path,
        source="breakhis",
        content="histology",
        findings=[
            *file_findings(
                "unlabelled",
                "warning",
                f"{counted(len(unlabelled), 'image is', 'images are')} not named like an image of BreaKHis, and left "
                f"out: {count_by_folder(unlabelled)}.",
                "Name them SOB_<B|M>_<type>-<year>-<slide>-<magnification>-<number>.png, or label all in a CSV.",
                root=path,
                names=unlabelled,
            ),
            *_contradictions(path, kept),
            *magnification,
            *other_file_findings(path, [name for name in files if not is_image(name)]),
        ],
        files_found=len(files),
    )


def _choose_magnifications(path: Path, rows: list[Row], wanted: tuple[int, ...]) -> tuple[list[Row], list[Finding]]:
    there = Counter(facts.magnification for _, facts in rows)
    unknown = sorted(set(wanted) - set(there))
    if unknown and rows:
        raise DataError(
            f"{path}: no image has the magnification {listed([str(value) for value in unknown])}. "
            f"There are {', '.join(f'{value} ({count:,} images)' for value, count in sorted(there.items()))}: "
            "choose among them with --magnification."
        )
    if wanted:
        left_out = [name for name, facts in rows if facts.magnification not in wanted]
        kept = [row for row in rows if row[1].magnification in wanted]
        return kept, file_findings(
            "magnification_left_out",
            "note",
            f"{counted(len(left_out), 'image has', 'images have')} another magnification than asked for, and left out.",
            "Nothing to do.",
            root=path,
            names=left_out,
        )
    if len(there) < 2:
        return rows, []
    shown = ", ".join(f"{value} ({count:,})" for value, count in sorted(there.items()))
    message = (
        f"images of {len(there)} magnifications are taken together: {shown}. They often show the same field, always "
        "of one patient, so that a split by patient keeps them on one side."
    )
    fix = "Nothing to do for a split by patient; --magnification 40 keeps one of them."
    return rows, [Finding("several_magnifications", "note", message, fix, (), len(there))]


def _contradictions(path: Path, rows: list[Row]) -> list[Finding]:
    """Slides under two types of tumour: one of them, 14-13412, is in the published set."""
    types: dict[str, set[str]] = defaultdict(set)
    for _, facts in rows:
        types[facts.slide_id].add(facts.tumour_type)
    several = {slide: sorted(found) for slide, found in types.items() if len(found) > 1}
    names = [name for name, facts in rows if facts.slide_id in several]
    if not names:
        return []
    patients = {facts.patient_id for _, facts in rows if facts.slide_id in several}
    shown = listed([f"{slide} ({' and '.join(found)})" for slide, found in several.items()])
    return [
        Finding(
            "patient_in_two_types",
            "warning",
            f"{counted(len(patients), 'patient has a slide', 'patients have slides')} under two types of "
            f"tumour: {shown}. The same fields may be there twice.",
            "A split by patient keeps them on one side; leave one of the two out with --exclude FILE.",
            absolute_paths(path, names),
            len(patients),
        )
    ]
