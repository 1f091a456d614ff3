"""ICD-10-CM: the American classification of diseases, a real hierarchy of three levels that installs by pip.

Chapter > block > category label the descriptions of the codes below, for instance ``A00-B99 Certain infectious and
parasitic diseases`` > ``A00-A09 Intestinal infectious diseases`` > ``A00 Cholera``. The 74,719 leaf codes repeat
themselves: the same fracture, left and right, first encounter and sequela. Taken as they are, each test text would
have its twin in train and every method would look perfect. So descriptions of one category with the same set of words
but for side, encounter, healing, severity, trimester and numbers are one *group*; one of a group is kept, drawn by a
seeded hash, and only categories with five groups or more are. Of a category's groups a fifth is test (rounded down)
and a tenth val (rounded to the nearest, so that each category has at least one of each), drawn the same way.

All of it takes two to four seconds, nearly all of them the package's own reading of its 9.7 MB of XML; the tree is
walked once, each code's children asked for once. With a folder to keep them in, the rows are parsed once
(`parsed_rows`). Source: PyPI ``simple-icd-10-cm``, the April 2026 release of CMS.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import polars as pl

from data.checks import Rows
from data.errors import DataError
from data.sources.parsed_rows import kept_rows
from data.splits import unit_hash

READER = 1  # a change in which rows are read gets another number: what was kept under an older one is not read
_PACKAGE = "simple_icd_10_cm"
LEVELS = ("chapter", "block", "category")
LEAST_GROUPS = 5
"""A category with fewer groups could not be split three ways and still train."""

_LATERALITY = {"right", "left", "bilateral", "unilateral", "unspecified", "upper", "lower", "eye", "ear"}
_ENCOUNTER = {"initial", "subsequent", "encounter", "sequela", "for"}
_HEALING = {"routine", "delayed", "healing", "nonunion", "malunion", "with", "without"}
_FRACTURE = {"open", "closed", "type", "i", "ii", "iii", "iiia", "iiib", "iiic", "or", "displaced", "nondisplaced"}
_SEVERITY = {"mild", "moderate", "severe", "severity"}
_TRIMESTER = {"first", "second", "third", "trimester"}
DROPPED = frozenset(_LATERALITY | _ENCOUNTER | _HEALING | _FRACTURE | _SEVERITY | _TRIMESTER)
"""Words that do not distinguish two descriptions of a category."""

_DIGITS = re.compile(r"\d+")
_WORD = re.compile(r"[^\s,;()\[\]]+")
_RANGE = re.compile(r"(.*) \(([A-Z0-9]+(?:-[A-Z0-9]+)?)\)")


class Code(NamedTuple):
    """One code of the tree: its labels at the three levels, itself, its description, and whether it has children."""

    labels: tuple[str, str, str]
    code: str
    description: str
    leaf: bool

    @property
    def group(self) -> tuple[str, ...]:
        """The words that distinguish it within its category, sorted; near-duplicates have the same."""
        return tuple(sorted(set(_WORD.findall(_DIGITS.sub("", self.description.lower()))) - DROPPED))


def read_icd10cm(all_rows: bool = False, seed: int = 42, folder: Path | None = None) -> Rows:
    """Return one description per near-duplicate group, in the order of the codes.

    With `all_rows`, every distinct description of a category or a code below it, inner codes included and categories
    of any size: 97,449; a group then shares one split. (The package holds 97,729 distinct descriptions; the other 280
    are titles of chapters and blocks, which belong to no category.)

    :param folder: where the rows are kept once they are parsed; None parses them anew.
    :raises DataError: if the package that brings the codes is not installed.
    """
    spec = find_spec(_PACKAGE)
    if folder is None or spec is None or not spec.submodule_search_locations:
        return Rows("icd10cm", _parsed(all_rows, seed), LEVELS)
    package = Path(spec.submodule_search_locations[0])
    frame = kept_rows(lambda: _parsed(all_rows, seed), package, (READER, all_rows, seed), folder)
    return Rows("icd10cm", frame, LEVELS)


def _parsed(all_rows: bool, seed: int) -> pl.DataFrame:
    groups = _grouped(_codes(_package()), leaves_only=not all_rows)
    kept: list[tuple[str, ...]] = []
    for category in groups.values():
        if not all_rows and len(category) < LEAST_GROUPS:
            continue
        for codes, split in zip(category.values(), _splits(list(category), seed), strict=True):
            chosen = codes if all_rows else [min(codes, key=lambda code: unit_hash(code.code, seed))]
            kept.extend((code.description, *code.labels, split) for code in chosen)
    frame = pl.DataFrame(kept, schema=dict.fromkeys(("text", *LEVELS, "split"), pl.String), orient="row")
    return frame.unique(subset="text", keep="first", maintain_order=True)


def _package() -> ModuleType:
    try:
        return import_module(_PACKAGE)
    except ImportError as error:
        raise DataError(
            "icd10cm needs the package simple-icd-10-cm, which is not installed", "pip install simple-icd-10-cm==1.5.0"
        ) from error


def _codes(tree: ModuleType) -> Iterator[Code]:
    """Walk the tree once, in its own order; a block that shares its only category's name is kept distinct from it."""
    for chapter in filter(tree.is_chapter, tree.get_all_codes()):
        chapter_label = _titled(tree.get_description(chapter))
        for block in tree.get_children(chapter):
            block_label = _titled(tree.get_description(block, prioritize_blocks=True))
            for category in tree.get_children(block, prioritize_blocks=True):
                labels = (chapter_label, block_label, f"{category} {tree.get_description(category)}")
                pending = [category]
                while pending:
                    code = pending.pop()
                    children = tree.get_children(code)
                    pending.extend(reversed(children))
                    yield Code(labels, code, tree.get_description(code), not children)


def _titled(description: str) -> str:
    """Return ``A00-B99 Certain diseases`` for ``Certain diseases (A00-B99)``."""
    return _RANGE.sub(r"\2 \1", description)


def _grouped(codes: Iterator[Code], leaves_only: bool) -> dict[str, dict[tuple[str, ...], list[Code]]]:
    """Return category -> group -> its codes, all in the order of the codes."""
    groups: defaultdict[str, defaultdict[tuple[str, ...], list[Code]]] = defaultdict(lambda: defaultdict(list))
    for code in codes:
        if code.leaf or not leaves_only:
            groups[code.labels[-1]][code.group].append(code)
    return {category: dict(members) for category, members in groups.items()}


def _splits(groups: list[tuple[str, ...]], seed: int) -> list[str]:
    """Return the split of each of a category's groups: by seeded hash a fifth test, a tenth val, the rest train."""
    order = sorted(range(len(groups)), key=lambda index: unit_hash(" ".join(groups[index]), seed))
    tests, vals = len(groups) // 5, (len(groups) + 5) // 10
    splits = ["train"] * len(groups)
    for place, index in enumerate(order[: tests + vals]):
        splits[index] = "test" if place < tests else "val"
    return splits
