"""The manifest: one row an image, the same columns whatever the source; and who its patients are.

A value that is not known is missing, never made up. Paths are absolute, so that a manifest means the
same files from every working directory. Reading a directory into a manifest is the work of `sources/`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.errors import DataError, UsageError, counted, one_line
from clearmargin.files import seen_from_here
from clearmargin.images.archive import has_member
from clearmargin.images.place import file_of, split_archive
from clearmargin.shown import Shown
from clearmargin.types import LABEL_NAMES, MANIFEST_COLUMNS, Content, Finding

_TEXT = (
    "path",
    "patient_id",
    "slide_id",
    "site",
    "source",
    "official_split",
    "sha256",
    "side",
    "view",
    "magnification",
)
_WHOLE = ("x", "y", "width", "height")


@dataclass(frozen=True, slots=True)
class Manifest(Shown):
    """The table of images, where it came from, and what was noticed while it was read.

    `frame` has the columns of `types.MANIFEST_COLUMNS` and a plain 0..N-1 index. `files_found` counts
    all files met on the way, images or not; `excluded` counts the images that the user left out. `content` is
    what the images show, where the source knows. `originals` gives the real path of each path that is a
    pseudonym (`pseudonyms.py`). `alike` holds groups of paths that show the same picture without being
    identical, which a fresh split keeps together.
    """

    frame: pd.DataFrame
    root: Path
    source: str
    findings: tuple[Finding, ...] = ()
    files_found: int = 0
    excluded: int = 0
    content: Content | None = None
    originals: Mapping[str, str] = field(default_factory=dict)
    alike: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"Manifest of {one_line(seen_from_here(self.root))[:200]}: {self.describe()}"

    def describe(self) -> str:
        """How many images of which class, and of how many patients."""
        labels = self.labels()
        classes = ", ".join(f"{int((labels == label).sum()):,} {name}" for label, name in enumerate(LABEL_NAMES))
        patients = counted(int(self.frame["patient_id"].nunique()), "patient", "patients")
        whose = patients if self.knows_patients else "unknown patients"
        return f"{counted(len(self), 'image', 'images')} ({classes}) of {whose}"

    @property
    def knows_patients(self) -> bool:
        """Every image has a patient_id."""
        return bool(len(self.frame)) and not bool(self.frame["patient_id"].isna().any())

    @property
    def has_official_split(self) -> bool:
        """At least one image comes with a place in an official split."""
        return bool(self.frame["official_split"].notna().any())

    def labels(self) -> NDArray[np.int8]:
        """(N,) 0 benign, 1 malignant."""
        return self.frame["label"].to_numpy(dtype=np.int8)

    def locate(self, path: str) -> str:
        """Where the image is read that the column `path` names."""
        return self.originals.get(path, path)

    @property
    def prefix(self) -> str:
        """How the path of everything below the root begins."""
        return str(self.root).removesuffix(os.sep) + os.sep

    def seen_from_root(self, paths: Iterable[str]) -> list[str]:
        """The paths as seen from the root, with forward slashes; files elsewhere stay absolute."""
        prefix = self.prefix
        return [path.removeprefix(prefix).replace(os.sep, "/") for path in paths]

    def relative_paths(self) -> list[str]:
        """Each image's path, `seen_from_root`."""
        return self.seen_from_root(self.frame["path"])

    def keep(self, rows: NDArray[np.bool_]) -> Manifest:
        """The manifest of the chosen rows only."""
        return replace(self, frame=self.frame.loc[rows].reset_index(drop=True))


def build_manifest(
    columns: Mapping[str, Sequence[Any]],
    *,
    root: Path,
    source: str,
    findings: Iterable[Finding] = (),
    files_found: int = 0,
    content: Content | None = None,
) -> Manifest:
    """A manifest of columns; the ones not given are missing.

    Raises:
        DataError: there is not one image.
    """
    n = len(columns["path"])
    if n == 0:
        raise DataError(
            f"{root}: no labelled images found. Put them in folders named benign/ and malignant/, "
            "or give a CSV with the columns path,label."
        )
    frame = pd.DataFrame({name: columns.get(name, [None] * n) for name in MANIFEST_COLUMNS})
    for name in _TEXT:
        frame[name] = frame[name].astype("str").where(frame[name].notna())
    for name in _WHOLE:
        frame[name] = frame[name].astype("Int64")
    frame["label"] = frame["label"].astype(np.int8)
    frame["source"] = source
    return Manifest(frame, root, source, tuple(findings), files_found, content=content)


def set_patients(manifest: Manifest, pattern: str) -> Manifest:
    """The manifest with patient_id taken from each path, as seen from the root, by a regular expression.

    The patient is the group named `patient`, else the first group, else the whole match.

    Raises:
        UsageError: the pattern is not a regular expression.
        DataError: it does not match every path; names the first that it misses.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--patient-regex {pattern!r} is not a regular expression: {error}.") from None
    group: str | int = "patient" if "patient" in regex.groupindex else min(1, regex.groups)
    paths = manifest.relative_paths()
    matches = [regex.search(path) for path in paths]
    patients = [match.group(group) if match else None for match in matches]
    missed = [path for path, patient in zip(paths, patients, strict=True) if not patient]
    if missed:
        raise DataError(
            f"--patient-regex {pattern!r} finds no patient in {len(missed):,} of {len(paths):,} paths, "
            f"the first is '{missed[0]}'. Paths are seen from {manifest.root}."
        )
    frame = manifest.frame.assign(patient_id=pd.Series(patients, dtype="str"))
    return replace(manifest, frame=frame)


def exclude_paths(manifest: Manifest, listing: Path) -> Manifest:
    """The manifest without the files named in a text file, one path a line, and without what blocked on these alone.

    A path is absolute, or seen from the manifest's root or from the working directory; characters that a line
    cannot hold are spelt out as `errors.one_line` does. A file stands for every crop of it; one that is there but
    is no image of the manifest is passed over. Lines that begin with # say nothing.

    Raises:
        DataError: the listing is missing, or names a file that the manifest does not have.
    """
    try:
        lines = listing.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{listing}: cannot be read ({error.strerror}); give a text file, one path a line.") from None
    except UnicodeDecodeError:
        raise DataError(f"{listing}: is not UTF-8 text; give a text file, one path a line.") from None
    paths = manifest.frame["path"].tolist()
    by_any_name = dict(zip(manifest.relative_paths(), paths, strict=True)) | {path: path for path in paths}
    by_any_name |= {original: path for path, original in manifest.originals.items()}
    by_any_name = {one_line(name): path for name, path in by_any_name.items()} | by_any_name
    whole: defaultdict[str, list[str]] = defaultdict(list)  # a file stands for every frame and box of it
    for name, path in by_any_name.items():
        whole[file_of(name)].append(path)
    left_out: set[str] = set()
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        found = [by_any_name[name]] if name in by_any_name else whole.get(name) or whole.get(os.path.abspath(name))
        if found:
            left_out.update(found)
        elif name and not name.startswith("#") and not _is_there(manifest.root, name):
            raise DataError(f"{listing}: line {number} '{name}' is not an image of {manifest.root}.")
    kept = manifest.keep(~manifest.frame["path"].isin(left_out).to_numpy())
    findings = [entry for entry in manifest.findings if not (_blocks(entry) and left_out.issuperset(entry.paths))]
    return replace(kept, findings=tuple(findings), excluded=len(manifest) - len(kept) + manifest.excluded)


def _blocks(finding: Finding) -> bool:
    return finding.severity == "blocking" and bool(finding.paths)


def _is_there(root: Path, name: str) -> bool:
    """There is such a file, though no image of the manifest: it was left out already."""
    for path in (str(root / name), os.path.abspath(name)):
        inside = split_archive(path)
        if os.path.lexists(path) or (inside is not None and has_member(*inside)):
            return True
    return False


def data_hash(manifest: Manifest) -> str:
    """sha256 over every image's content hash and label, in order of path: the identity of the data used."""
    digest = hashlib.sha256()
    rows = zip(manifest.relative_paths(), manifest.frame["sha256"], manifest.labels(), strict=True)
    for path, content, label in sorted(rows):
        digest.update(f"{path}\t{content}\t{label}\n".encode())
    return digest.hexdigest()


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Writes the table as Parquet or CSV, by the file's extension."""
    if path.suffix == ".parquet":
        manifest.frame.to_parquet(path, index=False)
    else:
        manifest.frame.to_csv(path, index=False)
