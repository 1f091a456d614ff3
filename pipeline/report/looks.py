"""How methods look on every chart, and where axes begin and end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

Spec = dict[str, Any]
Reach = tuple[float, float]
"""Where an axis begins and ends."""

_PLACES = {"v5": 0, "mrl": 1, "joint": 2, "inverted": 3, "no-prefix": 4, "uniform": 5, "logistic": 7}
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
_UNTRAINED = {"features*": ("u0", "stroke"), "pca*": ("u1", "cross")}
_COLOURS = 8
_LEAST = 5.0
"""Points that an axis of percentages covers at least, or noise would fill it."""


@dataclass(frozen=True)
class Style:
    """How a method is drawn: the CSS variable of its colour, and the shape of its points."""

    colour: str
    shape: str


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Give each method a look of its own, the published ones always the same; beyond eight, colours come again."""
    found: dict[str, Style] = {}
    free = [i for i in range(_COLOURS) if i not in {_PLACES[name] for name in names if name in _PLACES}]
    for name in names:
        if name in _UNTRAINED:
            found[name] = Style(*_UNTRAINED[name])
            continue
        place = _PLACES[name] if name in _PLACES else free.pop(0) if free else len(found) % _COLOURS
        found[name] = Style(f"c{place}", _SHAPES[place])
    return found


def reach_of(*columns: pl.Series) -> Reach:
    """Where an axis of percentages may begin and end to show these figures: round numbers that hold them all."""
    low, high = _ends(columns)
    low, high = (low, high) if high - low >= _LEAST else (max(0.0, min(low, 100.0 - _LEAST)), min(100.0, low + _LEAST))
    step = next((step for step in (1, 2, 5) if high - low <= 7 * step), 10)
    begin, end = max(0, math.floor(low / step) * step), min(100, math.ceil(high / step) * step)
    return (begin, end) if begin < end else (begin - step, end) if end == 100 else (begin, end + step)


def span_of(*columns: pl.Series) -> Reach:
    """Where an axis of differences may begin and end: it holds them all, zero, and a little room."""
    low, high = _ends(columns)
    room = max(0.5, (max(high, 0.0) - min(low, 0.0)) * 0.04)
    return min(low, 0.0) - room, max(high, 0.0) + room


def _ends(columns: Sequence[pl.Series]) -> Reach:
    return min(float(c.min()) for c in columns), max(float(c.max()) for c in columns)  # type: ignore[arg-type]
