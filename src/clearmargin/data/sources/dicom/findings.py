"""What is to be said of a folder of DICOM files: of its labels, of what was left out, and of how the images look."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from clearmargin.data.sources.dicom.labels import ADVICE, LabelTable
from clearmargin.data.sources.dicom.sorting import DicomImage, SortedFiles
from clearmargin.data.sources.findings import file_findings, listed, normal_findings
from clearmargin.data.sources.options import SourceOptions
from clearmargin.errors import counted
from clearmargin.images.dicom.tags import DicomTags
from clearmargin.images.read import is_image
from clearmargin.types import MALIGNANT, Finding

_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"


def table_findings(path: Path, table: LabelTable | None, found: SortedFiles, unmatched: Sequence[int]) -> list[Finding]:
    if table is None:
        return []
    lines = f"line{'s' if len(unmatched) > 1 else ''} {listed([str(number) for number in unmatched], 5)}"
    findings = file_findings(
        "label_conflict",
        "blocking",
        f"{counted(len(found.conflicting), 'image has', 'images have')} two labels in {table.path.name}"
        f"{_first(found.conflicting)}.",
        "Keep one label for each image in the table, or leave the images out with --exclude FILE.",
        root=path,
        names=found.conflicting,
    )
    if unmatched:
        findings.append(
            Finding(
                "unmatched_rows",
                "warning",
                f"{counted(len(unmatched), 'row of', 'rows of')} {table.path.name} ({lines}) fit no file that is here, "
                "or give a file name that several files have.",
                "Fetch the files, or write the path as seen from the folder, or a SOPInstanceUID.",
                (),
                len(unmatched),
            )
        )
    return [*findings, *_study_findings(path, found.images)]


def _first(names: Sequence[str]) -> str:
    return f", the first is '{names[0]}'" if names else ""


def _study_findings(path: Path, images: Sequence[DicomImage]) -> list[Finding]:
    """Studies called malignant whose two breasts both get that label."""
    studies: defaultdict[str | None, list[DicomImage]] = defaultdict(list)
    for image in images:
        if image.said.level == "study" and image.label == MALIGNANT and image.tags is not None:
            studies[image.tags.study_uid].append(image)
    both = [
        image
        for these in studies.values()
        if {"left", "right"} <= {image.tags.side for image in these if image.tags is not None}
        for image in these
    ]
    return file_findings(
        "study_label",
        "warning",
        f"{counted(len(both), 'image is', 'images are')} malignant by the label of a study that shows both breasts: "
        "one of them is probably healthy.",
        "Label each image, with the column SOPInstanceUID or path.",
        root=path,
        names=[image.name for image in both],
    )


def left_out_findings(path: Path, found: SortedFiles, options: SourceOptions) -> list[Finding]:
    reasons = ", ".join(f"{reason} ({len(names):,})" for reason, names in sorted(found.others.items()))
    several = counted(len(found.several_frames), "file has", "files have")
    tomosynthesis = f" ({len(found.tomosynthesis):,} of tomosynthesis)" if found.tomosynthesis else ""
    wanted = f"but no frame {options.frame}" if options.frame is not None else "and an image is one"
    return [
        *file_findings(
            "unlabelled",
            "warning",
            f"{counted(len(found.unlabelled), 'image without a label is', 'images without a label are')} left out.",
            ADVICE,
            root=path,
            names=found.unlabelled,
        ),
        *(normal_findings(path, found.normal, options) if found.normal else []),
        *file_findings(
            "unreadable_header",
            "warning",
            f"{counted(len(found.unreadable), 'file has', 'files have')} a DICOM header that cannot be read, and no "
            "label; left out.",
            "Export them again, uncompressed where the file as a whole is deflated.",
            root=path,
            names=found.unreadable,
        ),
        *file_findings(
            "multi_frame",
            "warning",
            f"{several} several frames{tomosynthesis} {wanted}; left out.",
            "Choose the frame to take of each with --frame N, counted from 1; or export the frames as single images.",
            root=path,
            names=found.several_frames,
        ),
        *file_findings(
            "other_modality",
            "note",
            f"DICOM files that are no mammogram or ultrasound image are left out: {reasons}.",
            "Nothing to do.",
            root=path,
            names=sorted(itertools.chain(*found.others.values())),
        ),
    ]


def looks_findings(path: Path, images: Sequence[DicomImage]) -> list[Finding]:
    mammograms = [image for image in images if image.tags is not None and image.tags.modality == "MG"]
    raw = [image.name for image in mammograms if _is_for_processing(image.tags)]
    shares = Counter(image.label for image in mammograms if _is_for_processing(image.tags))
    mixed = len(raw) < len(mammograms)
    return file_findings(
        "for_processing",
        "warning" if mixed else "note",
        f"{len(raw):,} of {len(mammograms):,} mammograms ({shares[MALIGNANT]:,} of these malignant) are raw values of "
        "the detector, marked FOR PROCESSING" + ("; they look unlike the others." if mixed else "."),
        "Use the images FOR PRESENTATION only, and leave the others out with --exclude FILE."
        if mixed
        else "Images FOR PRESENTATION, which radiologists read, look different: a model does not carry over.",
        root=path,
        names=raw,
    )


def _is_for_processing(tags: DicomTags | None) -> bool:
    return tags is not None and (tags.intent == "FOR PROCESSING" or tags.sop_class == _FOR_PROCESSING)


def rest_findings(path: Path, names: list[str]) -> list[Finding]:
    images = [name for name in names if is_image(name)]
    return [
        *file_findings(
            "not_dicom",
            "warning",
            f"{counted(len(images), 'image is', 'images are')} not DICOM, and left out.",
            "Read them by themselves, from a folder of their own.",
            root=path,
            names=images,
        ),
        *file_findings(
            "other_file",
            "note",
            f"{counted(len(names) - len(images), 'file is', 'files are')} not DICOM, and left out.",
            "Nothing to do.",
            root=path,
            names=[name for name in names if not is_image(name)],
        ),
    ]
