"""Claims in figures: what was published and what is measured, one unit per claim, for terminal and page.

Records keep shares, as all of `--json` does. A person reads per cents and points, and beside them counts: the unit
stands with every figure, so that 0.961 and 96.1 are never both on one page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from pipeline.claims.published import CLAIMS, DIFFERENCE, PERCENT, POINTS, Claim
from pipeline.claims.verdicts import PUBLISHED, Judged

_CLAIMS: Mapping[str, Claim] = {claim.id: claim for claim in CLAIMS}
_EVERYTHING = -1.0
"""Lower end of a published range that has none."""


def claims_table(claims: Sequence[Judged]) -> Table:
    """Every claim: what was published, what is measured here of it, the verdict."""
    seeds = max((claim.seeds for claim in claims), default=0)
    table = Table("id", "published", "measured, 95 % interval", "with the training gallery", "verdict", show_lines=True)
    table.title = f"published claims, n = {seeds} seeds; a test is passed with 95 % confidence"
    for claim in claims:
        cells = (published_lines(claim), measured_lines(claim), elsewhere_lines(claim))
        table.add_row(claim.id, *(Text("\n".join(lines) or "-") for lines in cells), claim.verdict)
    return table


def claim_lines(claims: Sequence[Judged]) -> list[str]:
    """How claims were measured that are not about accuracy, what was measured besides, and what to know about it."""
    return [f"{claim.id}{line}" for claim in claims for line in remarks(claim)]


def published_lines(claim: Judged) -> list[str]:
    """One line per published figure."""
    return [f"{name} {_range(claim.id, name, low, high)}" for name, (low, high) in claim.published.items()]


def measured_lines(claim: Judged) -> list[str]:
    """A line each figure that was published, and the difference between the methods; none if not measured."""
    return _lines(claim, _shown(claim, claim.measured or {}), claim.ci95)


def elsewhere_lines(claim: Judged) -> list[str]:
    """The same with the training split as gallery."""
    if claim.elsewhere is None:
        return []
    return _lines(claim, _shown(claim, claim.elsewhere["measured"]), claim.elsewhere["ci95"])


def remarks(claim: Judged) -> list[str]:
    """What was measured besides, how, and what a reader should know; each to be put behind the claim's id."""
    measured = claim.measured or {}
    besides = {name: value for name, value in measured.items() if name not in _shown(claim, measured)}
    how = claim.protocol if claim.elsewhere is None and claim.protocol != PUBLISHED else None
    lines = [f", besides: {'; '.join(_lines(claim, besides, claim.ci95))}"] if besides else []
    return [*lines, *(f": {line}" for line in (how, claim.note) if line)]


def _shown(claim: Judged, values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: value for name, value in values.items() if name in claim.published or name == DIFFERENCE}


def _lines(claim: Judged, values: Mapping[str, float | None], intervals: Mapping[str, Any] | None) -> list[str]:
    made = []
    for name, value in values.items():
        unit = _CLAIMS[claim.id].unit_of(name)
        interval = (intervals or {}).get(name)
        around = "" if interval is None else f" [{_number(interval[0], unit)}, {_number(interval[1], unit)}]"
        made.append(f"{name} " + ("never" if value is None else f"{_number(value, unit)}{_after(unit)}{around}"))
    return made


def _range(id_: str, name: str, low: float, high: float) -> str:
    unit = _CLAIMS[id_].unit_of(name)
    ends = [_number(end, unit, exact=True) for end in (low, high)]
    if low == _EVERYTHING:
        return f"under {ends[1]}{_after(unit)}"
    return f"{ends[0]}{_after(unit)}" if low == high else f"{ends[0]} to {ends[1]}{_after(unit)}"


def _after(unit: str) -> str:
    return f" {unit}" if unit else ""


def _number(value: float, unit: str, *, exact: bool = False) -> str:
    """A figure in its unit: shares with one decimal of a per cent, `exact` with as many digits as were published."""
    if not math.isfinite(value):
        return "-"
    if unit in (PERCENT, POINTS):
        sign = "+" if unit == POINTS else ""
        return f"{value * 100:{sign}.4g}" if exact else f"{round(value * 100, 1) + 0.0:{sign}.1f}"  # no -0.0
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,g}" if exact else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.2f}"
