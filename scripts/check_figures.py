"""Every figure in README.md and docs has a source: a field of a results file, or a named section of RESULTS.md.

    python scripts/check_figures.py            # prints figures without support as file:line, then exits 1

A figure is a number with a unit (`_UNITS`), with a decimal point or of four digits and more (12,345), outside code,
links and versions.
`docs/figures.toml` ties it to its source: an entry names a document, a phrase (`at`) that stands in the figure's
paragraph or table row, if need be a phrase of the heading or paragraph before (`under`), a file of benchmarks/results
(`source`) and the fields in it, or "RESULTS.md#a-heading". In a table row figures and fields are in the same order; in
a paragraph every figure is some field's. A shown figure is its field rounded to the digits shown. Where RESULTS.md is
the source, the number stands in that section. Per document, `definitions` lists numbers that nobody measured, and
`published` those that the analysis gave; `everywhere` has the definitions of all documents, such as sizes of datasets.

What is cheap is computed again: a field [over, a, b] is a / b, [minus, a, b] is a - b, of fields or of numbers that the
section has; `computed` has figures with the arithmetic behind them; and the counts of FLOPs in reproduce-*.json are
counted once more.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from write_tables import RESULTS, ROOT, without_tables, written

_UNITS = "%|points?|texts/s|GFLOPs?|MFLOPs?|GB/s|[TGMk]i?B|bytes|times|min|ms|us|s|h|x"
_NUMBER = r"(?<![\w.,])[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
FIGURE = re.compile(rf"({_NUMBER})(?:(?: ({_UNITS})\b|(?: (%)))|(?=[^\w.]|\.\s|\.$|$))(?! ?x \d)", re.MULTILINE)
_CODE = re.compile(r"`[^`]*`|\]\([^)]*\)|https?://\S+|\b[\w-]+ \d+\.\d+\.\d+\b|Python[ \d.+]+")


@dataclass(frozen=True)
class Figure:
    """A number as it is written, its unit if one follows, and the line that it stands in."""

    line: int
    number: str
    unit: str

    @property
    def text(self) -> str:
        """As a reader sees it."""
        return f"{self.number} {self.unit}".strip()


@dataclass(frozen=True)
class Block:
    """A paragraph, a list item or a table row: first line, text, figures, and the heading and paragraph before it."""

    line: int
    text: str
    figures: tuple[Figure, ...]
    before: str

    @property
    def is_row(self) -> bool:
        """Whether it is a row of a table."""
        return self.text.startswith("|")


def blocks(document: str) -> Iterator[Block]:
    """Split a Markdown document into blocks that have figures; fenced code has none."""
    heading, paragraph = "", ""
    for line, lines in _split(document):
        text = re.sub(r"\s+", " ", " ".join(lines))
        figures = tuple(_figures(line, "\n".join(lines)))
        if figures:
            yield Block(line, text, figures, f"{heading} {paragraph}")
        if text.startswith("#"):
            heading, paragraph = text, ""
        elif not text.startswith("|"):
            paragraph = text


def _split(document: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line's number and the lines of every paragraph, list item, table row and heading."""
    fenced, begun, lines = False, 1, list[str]()
    for number, line in enumerate([*document.splitlines(), ""], 1):
        fence = line.lstrip().startswith("```")
        if lines and (fence or not line.strip() or re.match(r"\s*(\||[-*] |\d+\. |#)", line)):
            yield begun, lines
            lines = []
        fenced ^= fence
        if not fenced and not fence and line.strip():
            begun = begun if lines else number
            lines.append(line)


def _figures(line: int, text: str) -> Iterator[Figure]:
    plain = _CODE.sub(lambda found: " " * len(found[0]), text)
    for match in FIGURE.finditer(plain):
        figure = Figure(line + plain.count("\n", 0, match.start()), match[1], match[2] or match[3] or "")
        if figure.unit or re.search("[.,]", figure.number):
            yield figure


def shows(number: str, value: float) -> bool:
    """Whether `number`, as written, is `value` rounded to the digits that are shown."""
    decimals = len(number.partition(".")[2])
    return abs(abs(float(number.replace(",", ""))) - abs(value)) <= 0.5 * 10.0**-decimals + 1e-9


@dataclass(frozen=True)
class Source:
    """Where figures come from: a file of results, or a section of RESULTS.md."""

    values: Any
    root: Path = ROOT

    def of(self, field: Any) -> list[float]:
        """Return the numbers of a field: one, or those of a list of lists; "FILE.json:field" is of another file."""
        if isinstance(field, list):
            (first,), (second,) = self.of(field[1]), self.of(field[2])
            return [first / second if field[0] == "over" else first - second]
        file, named, path = field.partition(".json:")
        if named:
            return source_named(f"{file}.json", self.root).of(path)
        if isinstance(self.values, str):
            if field not in _numbers(self.values):
                raise LookupError(f"{field} is not in that section")
            return [float(field.replace(",", ""))]
        return list(_flat(_walk(self.values, re.split("(?<! )/(?! )", field))))


def _walk(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        if isinstance(value, Mapping):
            value = value[step]
        elif step.isdigit():
            value = value[int(step)]
        else:
            value = next(item for item in value if step in (item.get("what"), item.get("id")))
    return value


def _flat(value: Any) -> Iterator[float]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _flat(item)
    else:
        yield float(value)


def _numbers(text: str) -> set[str]:
    return {match[0].lstrip("+-") for match in re.finditer(_NUMBER, text.replace("/", " "))}


@cache
def source_named(name: str, root: Path = ROOT) -> Source:
    """Read a file of results, or cut a section out of RESULTS.md.

    :raises LookupError: if there is no such file or section.
    """
    file, _, anchor = name.partition("#")
    if not anchor:
        if not (root / RESULTS / file).is_file():
            raise LookupError(f"there is no {RESULTS / file}")
        return Source(json.loads((root / RESULTS / file).read_text(encoding="utf-8")), root)
    sections = re.split(r"^## ", (root / "benchmarks" / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    for section in sections[1:]:
        if re.sub(r"[^a-z0-9]+", "-", section.partition("\n")[0].lower()).strip("-") == anchor:
            return Source(section, root)
    raise LookupError(f"RESULTS.md has no section {anchor}")


def unsupported(document: str, rules: Mapping[str, Any], root: Path = ROOT) -> Iterator[tuple[int, str]]:
    """Yield line and complaint for every figure without support, and for every entry that supports none.

    :param rules: of one document: `definitions`, `published`, `computed`, and `figure`, a list of entries.
    """
    computed = rules.get("computed", {})
    defined = {*rules.get("definitions", ()), *rules.get("published", ()), *computed}
    for text, expression in computed.items():
        if not shows(text.split()[0], arithmetic(expression)):
            yield 0, f"{text!r} is not {expression} = {arithmetic(expression):g}"
    entries = rules.get("figure", [])
    used = set()
    for block in blocks(document):
        figures = [figure for figure in block.figures if figure.text.lstrip("+-") not in defined]
        here = [index for index, entry in enumerate(entries) if _is_about(entry, block)]
        used.update(here)
        yield from _compared(block, figures, [entries[index] for index in here], root)
    for index in sorted({*range(len(entries))} - used):
        yield 0, f"nothing there says {entries[index]['at']!r} beside a figure"


def _is_about(entry: Mapping[str, Any], block: Block) -> bool:
    return entry["at"] in block.text and entry.get("under", "") in block.before


def arithmetic(expression: str) -> float:
    """Compute an expression of numbers, + - * / and brackets.

    :raises ValueError: if there is anything else in it.
    """
    if not re.fullmatch(r"[\d.e+\-*/() ]+", expression):
        raise ValueError(f"not arithmetic: {expression}")
    return float(eval(expression, {"__builtins__": {}}))


def _compared(
    block: Block, figures: Sequence[Figure], entries: Sequence[Mapping[str, Any]], root: Path
) -> Iterator[tuple[int, str]]:
    values, written = list[float](), set[str]()
    try:
        for entry in entries:
            source = source_named(entry["source"], root)
            values += [entry.get("scale", 1) * v for field in entry.get("fields", ()) for v in source.of(field)]
            if isinstance(source.values, str):
                written |= _numbers(source.values)
    except (LookupError, StopIteration, TypeError) as error:
        yield block.line, f"{entry['at']!r}: no such field ({error})"
        return
    left = [figure for figure in figures if figure.number.lstrip("+-") not in written]
    if block.is_row and values and not written:
        if len(left) != len(values):
            yield block.line, f"{len(left)} figures, {len(values)} fields: {block.text[:60]}"
        pairs = [(figure, [value]) for figure, value in zip(left, values, strict=False)]
    else:
        pairs = [(figure, values) for figure in left]
    for figure, candidates in pairs:
        if not any(shows(figure.number, value) for value in candidates):
            yield figure.line, f"no source has {figure.text!r}" + (f", but {values[:12]}" if values else "")


def recounted(root: Path = ROOT) -> Iterator[str]:
    """Yield a line for every count of FLOPs in reproduce-*.json that counting again does not give."""
    from pipeline.claims.cost import recounted as counts

    counted = {row["id"]: row["counted"] for row in counts()}
    for path in sorted((root / RESULTS).glob("reproduce-*.json")):
        for claim in json.loads(path.read_text(encoding="utf-8"))["claims"]:
            if claim["id"] in counted and claim["measured"] != counted[claim["id"]]:
                yield f"{path.name}: {claim['id']} counts {counted[claim['id']]}, not {claim['measured']}"


def main() -> int:
    """Check every document that the manifest names."""
    rules = tomllib.loads((ROOT / "docs" / "figures.toml").read_text(encoding="utf-8"))
    complaints = [f"benchmarks/results: {line}" for line in recounted()]
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        name, document = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        if written(document) != document:
            complaints.append(f"{name}: a table is not what its file says: python scripts/write_tables.py")
        own = rules.get(name, {})
        own["definitions"] = [*own.get("definitions", ()), *rules["everywhere"]["definitions"]]
        found = unsupported(without_tables(document), own)
        complaints += [f"{name}:{line}: {what}" for line, what in found]
    print("\n".join(complaints) or "every figure has a source")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
