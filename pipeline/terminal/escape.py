r"""What comes from data (texts, labels, names of levels and files) on its way to a terminal, Markdown or code.

A terminal obeys control characters: ESC sequences move the cursor, recolour what follows, write the clipboard (OSC 52).
Bidi controls show a line in another order than it has. Both are shown escaped, as `\x1b` or `\u202e`, wherever the
console prints and whatever the page shows, so that no table and no message has to think of it. Code gets quoted
literals, Markdown a code span or its own characters escaped.
"""

from __future__ import annotations

import json
import re
from typing import Any

_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_CONTROLS = re.compile(f"[{_CONTROL}]")
_ISOLATED = re.compile(f"\u2068[^{_CONTROL}]*\u2069|[{_CONTROL}]")
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|^[#+=-]", re.IGNORECASE)
"""What Markdown could take for markup. An underscore within a word, a hyphen or a bracket later on is none."""


def shown(text: str) -> str:
    """Text with control and bidi characters escaped; line breaks and tabs stay."""
    return _CONTROLS.sub(lambda found: _escaped(found[0]), text)


def shown_on_page(value: Any) -> Any:
    """The same of every text in a JSON value, but for a text between isolates, which keep its order to itself.

    The page puts names written from right to left between these (U+2068, U+2069).
    """
    if isinstance(value, str):
        return _ISOLATED.sub(lambda found: found[0] if len(found[0]) > 1 else _escaped(found[0]), value)
    if isinstance(value, dict):
        return {key: shown_on_page(one) for key, one in value.items()}
    return [shown_on_page(one) for one in value] if isinstance(value, list | tuple) else value


def one_line(text: str) -> str:
    """The same on one line."""
    return shown(" ".join(text.split()))


def code_literal(text: str) -> str:
    """Text as a string literal that Python, JSON and JavaScript read as that text, whatever is in it: ASCII alone."""
    return json.dumps(text)


def code_span(text: str) -> str:
    """Text as a code span of Markdown, on one line; a fence longer than any run of backticks in it."""
    line = one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def markdown_text(text: str) -> str:
    """Text as plain words of Markdown, on one line: nothing in it is markup, a link, a table's border or HTML."""
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", one_line(text)))


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
