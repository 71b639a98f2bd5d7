"""What the documents show: fenced blocks, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
"""Every page, also those that are written from the code."""

_FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:python3? -m )?clearmargin (.*)$")
_OTHER_LANGUAGES = ("python", "py", "json", "toml", "yaml", "csv")
_BEHIND = re.compile(r"\s(?:\||>|2>|&&|;)\s.*$")
"""What a shell would do with the output, or next."""


@dataclass(frozen=True)
class Block:
    """A fenced block: the language that is written behind the fence, and its text."""

    document: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it stands, for a person."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command line that is shown, without `clearmargin` and comments, and the first place where it is."""

    words: tuple[str, ...]
    place: str

    @property
    def line(self) -> str:
        """As one would type it."""
        return shlex.join(["clearmargin", *self.words])


def find_blocks(document: Path) -> Iterator[Block]:
    """The fenced blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        indent = len(found[1])
        body = "".join(
            line[indent:] if line[:indent].isspace() else line for line in found[3].splitlines(keepends=True)
        )
        yield Block(document, text[: found.start()].count("\n") + 1, found[2].lower(), body)


def blocks_of(*languages: str) -> list[Block]:
    """Every block of these languages in any document."""
    return [block for document in DOCUMENTS for block in find_blocks(document) if block.language in languages]


def find_commands() -> list[Command]:
    """Every distinct command line in a fenced block of any document, in the order of the documents."""
    found: dict[tuple[str, ...], str] = {}
    for document in DOCUMENTS:
        for block in find_blocks(document):
            if block.language in _OTHER_LANGUAGES:
                continue
            for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
                if shown := _COMMAND.match(line):
                    found.setdefault(read_words(shown[1]), block.place)
    return [Command(words, place) for words, place in found.items() if words]


def read_words(line: str) -> tuple[str, ...]:
    """The words of a command line without comment, pipe and redirection.

    >>> read_words("predict RUN 'a b' > out.csv  # all of them")
    ('predict', 'RUN', 'a b')
    """
    without = shlex.split(line, comments=True)
    joined = _BEHIND.sub("", f"{shlex.join(without)} ".replace("'>'", ">").replace("'|'", "|").replace("'2>'", "2>"))
    return tuple(shlex.split(joined))


def inline_commands(document: Path) -> list[str]:
    """Command lines within the prose, between backticks, without `clearmargin`."""
    prose = _FENCE.sub("", document.read_text(encoding="utf-8"))
    return re.findall(r"`clearmargin ([a-z][^`]*)`", prose)
