"""Semantic zoom in the terminal: the nearest texts at each prefix, side by side, or one below the other if narrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.table import Table
from rich.text import Text

from pipeline.retrieval.nearest import Hit, Zoom

WIDE = 120
"""Columns from which prefixes stand side by side."""


def zoom_table(query: str, found: Sequence[Zoom], levels: Sequence[str], width: int) -> Iterator[Table | str]:
    """The nearest texts at each prefix and, above them, what label most of them carry."""
    yield f"nearest to: {query}"
    if width >= WIDE:
        yield _side_by_side(found, levels)
    else:
        yield from (_one(zoom, levels) for zoom in found)


def _side_by_side(found: Sequence[Zoom], levels: Sequence[str]) -> Table:
    table = Table(show_lines=True)
    for zoom in found:
        table.add_column(f"{zoom.dim} dims", ratio=1)
    table.add_row(*(Text(_summary(zoom, levels)) for zoom in found))
    for row in zip_longest(*(zoom.hits for zoom in found)):
        table.add_row(*(Text() if hit is None else _cell(hit) for hit in row))
    return table


def _cell(hit: Hit) -> Text:
    return Text.assemble(f"{hit.similarity:.3f} ", (hit.text, "bold"), "\n", (_path(hit), "dim"))


def _one(zoom: Zoom, levels: Sequence[str]) -> Table:
    table = Table(title=Text(f"{zoom.dim} dims: {_summary(zoom, levels)}"), title_justify="left", expand=True)
    table.add_column("cosine", no_wrap=True)
    table.add_column("text", ratio=1)
    table.add_column(Text(" > ".join(levels)), ratio=1)
    for hit in zoom.hits:
        table.add_row(f"{hit.similarity:.3f}", Text(hit.text), Text(_path(hit)))
    return table


def _path(hit: Hit) -> str:
    return " > ".join(hit.labels)


def _summary(zoom: Zoom, levels: Sequence[str]) -> str:
    """How many of the hits agree, level by level."""
    agreed = zip(levels, zoom.shares(), strict=True)
    return ", ".join(f"{level} {label} {count}/{len(zoom.hits)}" for level, (label, count) in agreed)
