"""What readers of folders have to say of files that they left out, said rather than done silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from clearmargin.data.sources.options import SourceOptions
from clearmargin.errors import DataError, counted
from clearmargin.types import Finding, Severity

_ARCHIVES = (".zip", ".npz", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")


def file_findings(
    kind: str, severity: Severity, message: str, fix: str, *, root: Path, names: Sequence[str]
) -> list[Finding]:
    """One finding on the files, which are named as seen from the root; none when there is no such file."""
    return [Finding(kind, severity, message, fix, absolute_paths(root, names), len(names))] if names else []


def other_file_findings(path: Path, names: list[str]) -> list[Finding]:
    """What was passed over because it is no image; an archive may be a data set of its own."""
    archives = [name for name in names if name.lower().endswith(_ARCHIVES)]
    names = [name for name in names if not name.lower().endswith(_ARCHIVES)]
    return file_findings(
        "archive_left_out",
        "warning",
        f"{counted(len(archives), 'archive is', 'archives are')} not opened, and left out: {listed(archives)}.",
        "Give its path instead of the folder, if that is what you mean.",
        root=path,
        names=archives,
    ) + file_findings(
        "other_file",
        "note",
        f"{counted(len(names), 'file is', 'files are')} not named like an image, and left out.",
        "Nothing to do, unless an image has the wrong extension.",
        root=path,
        names=names,
    )


def normal_findings(path: Path, names: list[str], options: SourceOptions) -> list[Finding]:
    """What became of images without any lesion: left out, or taken as benign by the user's choice."""
    if options.view == "crop":
        return file_findings(
            "normal_left_out",
            "note",
            f"{counted(len(names), 'normal image was', 'normal images were')} left out: there is no lesion to cut out.",
            "Nothing to do; --view full --normal benign takes them as benign.",
            root=path,
            names=names,
        )
    if options.normal == "benign":
        return file_findings(
            "normal_as_benign",
            "note",
            f"{counted(len(names), 'normal image is', 'normal images are')} taken as benign, as asked for.",
            "Nothing to do; without --normal benign they are left out.",
            root=path,
            names=names,
        )
    return file_findings(
        "normal_left_out",
        "note",
        f"{counted(len(names), 'image is', 'images are')} normal, neither benign nor malignant, and left out.",
        "Nothing to do; --normal benign takes them as benign.",
        root=path,
        names=names,
    )


def check_any_left(path: Path, rows: Sequence[object], findings: Sequence[Finding]) -> None:
    """Passes when there is a row; else says what became of the images.

    Raises:
        DataError: there is none.
    """
    if not rows:
        reasons = " ".join(f"{finding.message} {finding.fix}" for finding in findings if finding.kind != "other_file")
        raise DataError(f"{path}: there is no image to use. {reasons}".rstrip())


def count_by_folder(names: Sequence[str]) -> str:
    """The three top folders with most of the files, with their numbers.

    >>> count_by_folder(["normal/a.png", "normal/b.png", "c.png"])
    'normal (2), . (1)'
    """
    where = Counter(name.split("/")[0] if "/" in name else "." for name in names)
    return ", ".join(f"{folder} ({count})" for folder, count in where.most_common(3))


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more there are.

    >>> listed(["a", "b"]), listed(["a", "b", "c", "d"], most=2)
    ('a, b', 'a, b and 2 more')
    """
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def absolute_paths(root: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The paths of files that are named as seen from the root."""
    return tuple(str(root / name) for name in names)
