"""Every error that Clearmargin raises on purpose, with its exit code and HTTP status.

    ClearmarginError            1   500   (never raised itself)
    ├── UsageError              2   400   the command or the settings are wrong
    │   ├── ConfigError         2   400   unknown key, value out of range
    │   ├── UnknownName         2   400   no such recipe, model, source…; names the closest
    │   └── MissingExtra        2   400   a library is not installed that only some jobs need
    ├── DataError               3   422   the data are missing, broken or would mislead
    │   ├── ImageError          3   422   one file cannot be used as an image
    │   ├── AuditBlocked        3   422   the audit found what must be mended first
    │   ├── ArchiveTooLarge     3   422   an archive holds more than its limits allow
    │   ├── NotAttainable       3   422   no threshold has what an operating point asks for
    │   └── SplitError          3   422   no honest split is possible
    ├── BundleError             4   500   not a bundle, tampered with, or incompatible
    ├── AllRefused              5   422   every input was refused or unreadable
    ├── ServerError             1   500   a server that was asked cannot be reached, or cannot answer
    └── Interrupted           130   503   the user stopped the job; it can be resumed

A message is one line, whatever the file that it names is called: what happened, where, how to fix it.
They are caught in two places only, the entry of the command line and the web handler.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClearmarginError(Exception):
    """The root; catch this to catch everything that Clearmargin raises on purpose."""

    exit_code = 1
    http_status = 500

    def __str__(self) -> str:
        return one_line(super().__str__())


class UsageError(ClearmarginError):
    exit_code = 2
    http_status = 400


class ConfigError(UsageError):
    pass


class UnknownName(UsageError):
    """A name that is not in a registry; the message lists what is, closest first.

    >>> str(UnknownName("recipe", "cancernt", ["cancernet", "cnn_50"]))
    "there is no recipe 'cancernt'; did you mean 'cancernet'? Known: cancernet, cnn_50."
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = list(known)
        hint = f"; did you mean '{close}'?" if (close := closest(name, names)) else "."
        super().__init__(f"there is no {what} '{name}'{hint} Known: {', '.join(names)}.")


class MissingExtra(UsageError):
    """A library that only some jobs need cannot be used here.

    >>> print(MissingExtra("the model 'timm:vgg16'", "timm"))
    the model 'timm:vgg16' needs timm; install it with: pip install "clearmargin[backbones]"
    """

    def __init__(self, what: str, library: str, *, reason: str = "", extra: str = "backbones") -> None:
        why = f" ({reason})" if reason else ""
        super().__init__(f'{what} needs {library}{why}; install it with: pip install "clearmargin[{extra}]"')


class DataError(ClearmarginError):
    exit_code = 3
    http_status = 422


class ImageError(DataError):
    """One file that cannot be used as an image.

    `kind` is the audit's word for it: `missing`, `empty`, `unreadable`, `truncated`, `not_an_image`,
    `too_large`, `unsupported`. `reason` is the message without the path.
    """

    def __init__(self, kind: str, path: str, reason: str) -> None:
        self.kind = kind
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class ArchiveTooLarge(DataError):
    """It holds more than its limits allow."""


class AuditBlocked(DataError):
    pass


class SplitError(DataError):
    pass


class NotAttainable(DataError):
    """No threshold has what an operating point asks for."""


class BundleError(ClearmarginError):
    exit_code = 4
    http_status = 500


class AllRefused(ClearmarginError):
    exit_code = 5
    http_status = 422


class ServerError(ClearmarginError):
    pass


class Interrupted(ClearmarginError):
    exit_code = 130
    http_status = 503


def one_line(text: str) -> str:
    r"""The text with line breaks, terminal codes and what is not Unicode, all of which a file name may hold, spelt out.

    >>> print(one_line("a\nb"))
    a\nb
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def counted(number: int, one: str, many: str) -> str:
    """The number with the words that go with it.

    >>> counted(1, "file is", "files are"), counted(1200, "file is", "files are")
    ('1 file is', '1,200 files are')
    """
    return f"{number:,} {one if number == 1 else many}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of the known names, or None when none is near.

    >>> closest("epoch", ["epochs", "seed"])
    'epochs'
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None
