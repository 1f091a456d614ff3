"""Plain English in what a person reads: documents, first lines of docstrings, help texts and messages.

    python scripts/check_prose.py            # prints each finding as file:line, exits 1 if there is one

Two checks. `scripts/terms.toml` lists words that the field's own terms replaced, each with what to write instead: they
cannot come back. proselint adds its general rules, without those on typography. Nothing is downloaded.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "cache", "heads", "data", "semantic_zoom", "benchmarks", "scripts", "examples")
DOCUMENTS = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/**/*.md")
SENTENCE = 4
"""Words from which on a string in the code counts as a message."""


class Passage(NamedTuple):
    """Text that a person reads, and where its first line stands."""

    path: Path
    line: int
    text: str


def passages_of_document(path: Path) -> Iterator[Passage]:
    """Paragraphs of a Markdown file, without code, links' targets and what stands in backticks."""
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    ") and line.strip():
            yield Passage(path, number, without_code(re.sub(r"\]\([^)]*\)", "]", line)))


def passages_of_notebook(path: Path) -> Iterator[Passage]:
    """Lines of a notebook's Markdown cells; the line number is that of the cell's, counted over such cells."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = (line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Passage(path, number, without_code(re.sub(r"\]\([^)]*\)", "]", line)))


def passages_of_module(path: Path) -> Iterator[Passage]:
    """First lines of docstrings, and every string of several words: help texts and messages."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(id(first.value))
                yield Passage(path, first.lineno, without_code(str(first.value.value).strip().split("\n")[0]))
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else None
        if isinstance(text, str) and len(text.split()) >= SENTENCE and text.isprintable():
            yield Passage(path, node.lineno, without_code(text))


def without_code(text: str) -> str:
    """`text` with what stands in backticks replaced by a neutral word."""
    return re.sub(r"`+[^`]*`+", "X", text)


def passages() -> Iterator[Passage]:
    """Everything that is checked."""
    for pattern in DOCUMENTS:
        for path in sorted(ROOT.glob(pattern)):
            if path.name != "CHANGELOG.md":
                yield from passages_of_document(path)
    for path in sorted((ROOT / "docs").rglob("*.ipynb")):
        yield from passages_of_notebook(path)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield from passages_of_module(path)


def replaced_terms() -> list[tuple[re.Pattern[str], str]]:
    """The word list: a pattern and what to write instead."""
    listed = tomllib.loads((ROOT / "scripts" / "terms.toml").read_text(encoding="utf-8"))["terms"]
    return [(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), instead) for pattern, instead in listed.items()]


def term_findings(found: Passage, terms: list[tuple[re.Pattern[str], str]]) -> Iterator[str]:
    """A line for each replaced term in the passage."""
    for pattern, instead in terms:
        if match := pattern.search(found.text):
            yield f"{found.path.relative_to(ROOT)}:{found.line}: '{match[0]}': write {instead}"


def general_findings(found: Passage) -> Iterator[str]:
    """What proselint says of the passage."""
    from proselint.tools import LintFile

    for result in LintFile("passage", found.text).lint(CONFIG):
        message = result.check_result
        yield f"{found.path.relative_to(ROOT)}:{found.line}: {message.check_path}: {message.message}"


RULES = (
    "archaism", "cliches", "hedging", "industrial_language", "malapropisms", "mixed_metaphors", "mondegreens",
    "nonwords", "redundancy", "uncomparables",
)  # fmt: skip
CONFIG = {"max_errors": 1000, "checks": dict.fromkeys(RULES, True)}


def main() -> int:
    """Check everything, print the findings."""
    from proselint.checks import __register__
    from proselint.registry import CheckRegistry

    CheckRegistry().register_many(__register__)
    terms = replaced_terms()
    findings = [
        line
        for found in passages()
        if found.text.strip()
        for line in (*term_findings(found, terms), *general_findings(found))
    ]
    for line in findings:
        print(line)
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
