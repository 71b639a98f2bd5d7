"""CBIS-DDSM (Lee et al. 2017), as Kaggle and as TCIA publish it: full mammograms, or a crop around each lesion.

A mammogram that shows several lesions is one row, malignant if any of them is. One that is in the mass and in
the calcification tables is one row, too. The official split is that of the tables, with one correction: the two
pairs of tables were split apart from each other, so that some patients are in the training part of one and in the
test part of the other. Of these, the images of the training part are left out and the finding
`patient_on_both_sides` names them; a mammogram that is in both parts counts as test. So no patient crosses, and
the test part is the published one. slide_id is one breast: `P_00001_LEFT`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources.cbis_ddsm.files import choose_crop, choose_full, index_series
from clearmargin.data.sources.cbis_ddsm.tables import Lesion, LesionFile, find_tables, read_lesions
from clearmargin.data.sources.findings import absolute_paths, check_any_left, file_findings, listed
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.walk import is_tree, walk_files
from clearmargin.errors import counted
from clearmargin.types import BENIGN, MALIGNANT, Finding, Split


@dataclass(frozen=True, slots=True)
class _Image:
    """One image, as seen from the root, and every lesion that is on it."""

    name: str
    lesions: tuple[Lesion, ...]

    @property
    def label(self) -> int | None:
        """Malignant if any lesion is; None where one is of unknown pathology and none is malignant."""
        labels = {lesion.label for lesion in self.lesions}
        if MALIGNANT in labels:
            return MALIGNANT
        return None if None in labels else BENIGN

    @property
    def split(self) -> Split:
        return "test" if any(lesion.split == "test" for lesion in self.lesions) else "train"

    @property
    def patient_id(self) -> str:
        return self.lesions[0].patient_id


@dataclass(slots=True)
class _Found:
    """The images, and what was noticed while they were looked for."""

    images: list[_Image] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    swapped: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)


def recognises(path: Path) -> bool:
    """One of the four case description tables lies anywhere in it."""
    return is_tree(path) and any(find_tables([name]) for name in walk_files(path))


def read(path: Path, options: SourceOptions = SourceOptions()) -> Manifest:
    """One row a full mammogram, or with view "crop" one row a lesion.

    Raises:
        DataError: a table cannot be read or lacks a column, or none of its images is there.
    """
    files = list(walk_files(path))
    tables = find_tables(files)
    lesions = read_lesions(path, tables)
    wanted = {file.series for lesion in lesions for file in (lesion.full, lesion.crop, lesion.mask)} - {""}
    series = index_series(path, files, wanted)
    found = _find_full(path, lesions, series) if options.view == "full" else _find_crops(path, lesions, series)
    known = [image for image in found.images if image.label is not None]
    crossing = _crossing_patients(known)
    left_out = [image.name for image in known if image.patient_id in crossing and image.split == "train"]
    used = [image for image in known if image.patient_id not in crossing or image.split == "test"]
    others = sorted(set(files) - set(tables) - {image.name for image in found.images})
    findings = [
        *_crossing_findings(path, crossing, left_out),
        *_file_findings(path, found, options),
        *_label_findings(path, found.images),
        *_other_findings(path, others, options),
    ]
    check_any_left(path, used, findings)
    return build_manifest(
        _columns(path, used),
        root=path,
        source="cbis_ddsm",
        content="lesion" if options.view == "crop" else "mammogram",
        findings=findings,
        files_found=len(files),
    )


def _columns(path: Path, images: Sequence[_Image]) -> dict[str, list[object]]:
    ordered = sorted(images, key=lambda image: image.name)
    first = [image.lesions[0] for image in ordered]
    return {
        "path": [str(path / image.name) for image in ordered],
        "label": [image.label for image in ordered],
        "patient_id": [lesion.patient_id for lesion in first],
        "slide_id": [f"{lesion.patient_id}_{lesion.side.upper()}" if lesion.side else None for lesion in first],
        "side": [lesion.side for lesion in first],
        "view": [lesion.view for lesion in first],
        "official_split": [image.split for image in ordered],
    }


def _find_full(path: Path, lesions: Sequence[Lesion], series: dict[str, list[str]]) -> _Found:
    found = _Found()
    for mammogram in _group_mammograms(lesions):
        files = {lesion.full: None for lesion in mammogram}
        chosen = next((name for file in files if (name := choose_full(path, series.get(file.series, [])))), None)
        if chosen is None:
            found.missing.append(next(iter(files)).path)
            continue
        found.images.append(_Image(chosen, tuple(mammogram)))
        if len({lesion.table for lesion in mammogram}) > 1:
            found.twice.append(chosen)
    return found


def _group_mammograms(lesions: Sequence[Lesion]) -> list[list[Lesion]]:
    """The lesions of each mammogram: one series, or the same view of the same breast in the mass and calc tables.

    Each breast was X-rayed once in each view (Heath et al. 2001), and the two pairs of tables may name two series
    for it. Two series in one table stay two images.
    """
    by_series: defaultdict[LesionFile | str, list[Lesion]] = defaultdict(list)
    for lesion in lesions:
        by_series[lesion.full.series or lesion.full].append(lesion)
    by_view: defaultdict[tuple[str, str | None, str | None], list[list[Lesion]]] = defaultdict(list)
    for group in by_series.values():
        by_view[group[0].patient_id, group[0].side, group[0].view].append(group)
    mammograms: list[list[Lesion]] = []
    for (_, side, view), groups in by_view.items():
        tables = [{lesion.table for lesion in group} for group in groups]
        if side and view and len(groups) == 2 and not tables[0] & tables[1]:
            mammograms.append([*groups[0], *groups[1]])
        else:
            mammograms += groups
    return mammograms


def _find_crops(path: Path, lesions: Sequence[Lesion], series: dict[str, list[str]]) -> _Found:
    found = _Found()
    full = {uid: choose_full(path, series.get(uid, [])) for uid in {lesion.full.series for lesion in lesions}}
    by_name: defaultdict[str, list[Lesion]] = defaultdict(list)
    for lesion in lesions:
        crop = choose_crop(path, lesion, series, full[lesion.full.series])
        if crop is None:
            found.missing.append(lesion.crop.path)
            continue
        by_name[crop.name].append(lesion)
        if crop.is_swapped:
            found.swapped.append(crop.name)
    found.images = [_Image(name, tuple(these)) for name, these in by_name.items()]
    return found


def _crossing_patients(images: Sequence[_Image]) -> set[str]:
    """The patients with images in both parts, or with a lesion in either of one mammogram."""
    splits: defaultdict[str, set[Split]] = defaultdict(set)
    for image in images:
        splits[image.patient_id] |= {lesion.split for lesion in image.lesions}
    return {patient for patient, these in splits.items() if len(these) > 1}


def _crossing_findings(path: Path, patients: set[str], left_out: list[str]) -> list[Finding]:
    if not patients:
        return []
    return [
        Finding(
            "patient_on_both_sides",
            "warning",
            f"{counted(len(patients), 'patient is', 'patients are')} in the training part of one table and in the test "
            f"part of another: {listed(sorted(patients), 20)}. Of them, "
            f"{counted(len(left_out), 'training image is', 'training images are')} left out; the test part is whole.",
            "Nothing to do: the official split is kept, and no patient is in two parts of it.",
            absolute_paths(path, left_out),
            len(patients),
        )
    ]


def _file_findings(path: Path, found: _Found, options: SourceOptions) -> list[Finding]:
    what = "lesions" if options.view == "crop" else "mammograms"
    n = len(found.images) + len(found.missing)
    return [
        *file_findings(
            "missing",
            "warning",
            f"{len(found.missing):,} of the {n:,} {what} in the tables are not there"
            + (" (a lesion counts as there when its crop is, not only its mask)." if options.view == "crop" else "."),
            "Fetch the rest of the images, if the download broke off; without them the official split is not complete.",
            root=path,
            names=found.missing,
        ),
        *file_findings(
            "swapped_files",
            "note",
            f"{counted(len(found.swapped), 'lesion has its', 'lesions have their')} crop and mask the other way round "
            "in the tables; which is which was told by what they show.",
            "Nothing to do: the crop is used.",
            root=path,
            names=found.swapped,
        ),
        *file_findings(
            "listed_twice",
            "note",
            f"{counted(len(found.twice), 'mammogram is', 'mammograms are')} in the mass and the calcification tables "
            "both; each is one row, malignant if any of its lesions is.",
            "Nothing to do.",
            root=path,
            names=found.twice,
        ),
    ]


def _label_findings(path: Path, images: Sequence[_Image]) -> list[Finding]:
    disagreeing = [image.name for image in images if len({lesion.label for lesion in image.lesions}) > 1]
    unknown = [image.name for image in images if image.label is None]
    return [
        *file_findings(
            "lesions_disagree",
            "note",
            f"{counted(len(disagreeing), 'image shows', 'images show')} lesions of which some are benign and some "
            "malignant; an image is malignant if any of its lesions is.",
            "Nothing to do; --view crop takes each lesion by itself.",
            root=path,
            names=disagreeing,
        ),
        *file_findings(
            "unlabelled",
            "warning",
            f"{counted(len(unknown), 'image has', 'images have')} a pathology that is not BENIGN, "
            "BENIGN_WITHOUT_CALLBACK or MALIGNANT, and left out.",
            "Correct the column 'pathology' of the tables.",
            root=path,
            names=unknown,
        ),
    ]


def _other_findings(path: Path, names: list[str], options: SourceOptions) -> list[Finding]:
    wanted = "crop of a lesion" if options.view == "crop" else "full mammogram"
    return file_findings(
        "other_file",
        "note",
        f"{counted(len(names), 'file is', 'files are')} no {wanted} that the tables name, and left out.",
        f"Nothing to do; --view {'full' if options.view == 'crop' else 'crop'} takes other files.",
        root=path,
        names=names,
    )
