"""Lines that begin with their label: ``__label__sport the text``, ``NUM:date the text``, ``A00.1  the text``.

fastText, TREC and lists of codes are written so. A file is one of these only if every line is, and for labels without
``__label__`` if they repeat or are all codes: a sentence has other words in front.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

_FASTTEXT = re.compile(r"((?:__label__\S+[\s,]+)+)(.*)", re.DOTALL)
_TREC = re.compile(r"([A-Za-z]+:[A-Za-z]+)\s+(.*)", re.DOTALL)
_CODE = re.compile(r"([A-Z]{1,3}\d[\dA-Z.-]*|\d{2,}[\d.]*) +(.*)", re.DOTALL)


def labelled(lines: Sequence[str], source: str) -> tuple[pl.DataFrame, str] | None:
    """Return columns label (or code) and text of `lines`, and a note; None if they are not all so written.

    Several labels of one line become one cell, parted by semicolons, which the reader of labels judges.
    """
    filled = [line for line in lines if line.strip()]
    tabs = any("\t" in line for line in filled[:100])
    for name, form in (("label", _FASTTEXT), ("label", _TREC), ("code", _CODE)):
        found = [form.fullmatch(line) for line in filled[:100]]
        if len(filled) < 2 or not all(found) or (tabs and form is not _FASTTEXT):  # tabs part columns
            continue
        found = [form.fullmatch(line) for line in lines]
        pairs = [(one[1], one[2]) if one else (None, line or None) for one, line in zip(found, lines, strict=True)]
        labels = [label for label, _ in pairs if label is not None]
        if len(labels) < len(filled) or (form is _TREC and len(set(labels)) > len(labels) / 2):
            continue
        if form is _FASTTEXT:
            pairs = [(_one_label(label), text) for label, text in pairs]
        frame = pl.DataFrame(pairs, schema={name: pl.String, "text": pl.String}, orient="row")
        return frame, f"{source}: each line begins with its {name}"
    return None


def _one_label(marked: str | None) -> str | None:
    if marked is None:
        return None
    return ";".join(part.strip(" ,\t") for part in marked.split("__label__") if part.strip(" ,\t"))
