"""The model card as HTML: the few forms of Markdown that a card is written in, all text escaped.

Nothing in the card becomes a tag, a link or an attribute, whoever wrote it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

_HEADING = re.compile(r"(#{1,6}) +(.*)")
_RULE_CELL = re.compile(r":?-+:?")
_CODE, _STRONG, _STRESSED = (re.compile(form) for form in (r"`([^`]+)`", r"\*\*([^*]+)\*\*", r"\*([^*]+)\*"))


def card_html(markdown: str) -> str:
    r"""Headings, paragraphs, lists, quotes and tables, without any attribute.

    >>> card_html("# A <b>\n\n- one\n- **two** `x`")
    '<h1>A &lt;b&gt;</h1>\n<ul><li>one</li><li><strong>two</strong> <code>x</code></li></ul>'
    """
    return "\n".join(_blocks(markdown))


def _blocks(markdown: str) -> Iterator[str]:
    for text in re.split(r"\n\s*\n", markdown.replace("\r\n", "\n").strip()):
        rest: list[str] = []
        for line in text.split("\n"):
            heading = _HEADING.fullmatch(line)
            if heading is None:
                rest.append(line)
                continue
            yield from _block(rest)
            rest = []
            level = len(heading[1])
            yield f"<h{level}>{_inline(heading[2])}</h{level}>"
        yield from _block(rest)


def _block(lines: list[str]) -> Iterator[str]:
    """Lines without a heading or an empty line among them: paragraphs, and lists within them."""
    if not lines:
        return
    if all(line.startswith("|") for line in lines):
        yield _table(lines)
        return
    if all(line.startswith(">") for line in lines):
        yield f"<blockquote><p>{_inline(' '.join(line[1:].strip() for line in lines))}</p></blockquote>"
        return
    paragraph: list[str] = []
    items: list[str] = []
    for line in lines:
        if line.startswith("- "):
            items.append(line[2:])
        elif items:
            items[-1] += f" {line.strip()}"
        else:
            paragraph.append(line.strip())
    if paragraph:
        yield f"<p>{_inline(' '.join(paragraph))}</p>"
    if items:
        yield f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"


def _table(lines: list[str]) -> str:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    head = len(rows) > 1 and all(_RULE_CELL.fullmatch(cell) for cell in rows[1])
    parts = []
    for number, row in enumerate(rows):
        if head and number == 1:
            continue
        tag = "th" if head and number == 0 else "td"
        parts.append("<tr>" + "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in row) + "</tr>")
    return f"<table>{''.join(parts)}</table>"


def _inline(text: str) -> str:
    coded = _CODE.sub(r"<code>\1</code>", html.escape(text))
    return _STRESSED.sub(r"<em>\1</em>", _STRONG.sub(r"<strong>\1</strong>", coded))
