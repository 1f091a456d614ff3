"""What became of the published claims here: measured figures beside the published ones, and a verdict each.

Figures were published for one dataset and two backbones, so whether they fall inside the published ranges elsewhere is
reported (`reproduced`) but is not the verdict: that is on the claim's test (`claims.py`). All accuracies were published
in leave-one-out over 500 texts. A claim that holds there and not with the training split as gallery, where an index
would be, *holds only under the published protocol*. Claims on cost and search are measured elsewhere (`pipeline.cost`,
`pipeline.retrieval`) and judged here by the same rule; they have one protocol, which their row spells out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.claims.published import CLAIMS, Claim, Measurement, Range
from pipeline.evaluation.comparison import Entry, seeds_in_common
from pipeline.evaluation.predictions import Predictions

PUBLISHED, ELSEWHERE = "leave-one-out", "gallery"
HOLDS = "holds"
ONLY_PUBLISHED = "holds only under the published protocol"
FAILS = "does not hold"
NOT_MEASURED = "not measured here"


@dataclass(frozen=True)
class Judged:
    """A claim with what was measured: a row of `reproduce --json`.

    `measured` and `ci95` are by figure, under `protocol`; `elsewhere` holds the same for the other protocol.
    `reproduced` says by figure whether the interval touches the published range, to the digits that were published.
    `seeds` is n. `note`: what a reader should know besides.
    """

    id: str
    claim: str
    published: Mapping[str, Range]
    measured: Mapping[str, float | None] | None
    ci95: Mapping[str, Range | None] | None
    protocol: str | None
    verdict: str
    tested: str
    reproduced: Mapping[str, bool] = field(default_factory=dict)
    elsewhere: Mapping[str, Any] | None = None
    seeds: int = 0
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON."""
        return asdict(self)


def verdict(published: bool | None, elsewhere: bool | None) -> str:
    """Judge a claim by whether its test was passed under the published protocol and under the other one.

    None is "not measured". A claim that fails where it was made does not hold, whatever happens elsewhere.
    """
    if published is None:
        return NOT_MEASURED
    if not published:
        return FAILS
    return ONLY_PUBLISHED if elsewhere is False else HOLDS


def judge(
    entries: Mapping[str, Sequence[Entry]], others: Mapping[str, Measurement] | None = None
) -> tuple[Judged, ...]:
    """Judge every claim, in the order of the table.

    :param entries: runs by protocol ("leave-one-out", "gallery"); methods other than v5 and mrl are left aside.
    :param others: measurements by claim id, of claims that are not about accuracy.
    :raises PipelineError: if v5 and mrl were both scored but share no seed.
    """
    runs = {protocol: _pairs(entries.get(protocol, ())) for protocol in (PUBLISHED, ELSEWHERE)}
    return tuple(_judged(claim, runs, (others or {}).get(claim.id)) for claim in CLAIMS)


def _pairs(entries: Sequence[Entry]) -> dict[str, dict[int, Predictions]]:
    """Answers of v5 and mrl by seed, for the seeds that both have; empty if one of them has no run."""
    runs: dict[str, dict[int, Predictions]] = {"v5": {}, "mrl": {}}
    for entry in entries:
        if entry.method in runs:
            runs[entry.method][entry.seed] = entry.predictions
    if not all(runs.values()):
        return {}
    seeds = seeds_in_common(runs["v5"], runs["mrl"], ("v5", "mrl"))
    return {method: {seed: by_seed[seed] for seed in seeds} for method, by_seed in runs.items()}


def _judged(
    claim: Claim, runs: Mapping[str, Mapping[str, Mapping[int, Predictions]]], other: Measurement | None
) -> Judged:
    found = {PUBLISHED: other, ELSEWHERE: None}
    if claim.measure is not None:
        found = {
            protocol: claim.measure(predictions) if predictions else None for protocol, predictions in runs.items()
        }
    ours, elsewhere = found[PUBLISHED], found[ELSEWHERE]
    return Judged(
        id=claim.id,
        claim=claim.claim,
        published=claim.published,
        measured=None if ours is None else _values(ours),
        ci95=None if ours is None else _intervals(ours),
        protocol=None if ours is None else PUBLISHED if claim.measure is not None else ours.protocol,
        verdict=verdict(*(None if m is None else m.passed for m in (ours, elsewhere))),
        tested=claim.tested,
        reproduced={} if ours is None else _reproduced(claim, ours),
        elsewhere=None
        if elsewhere is None
        else {"protocol": ELSEWHERE, "measured": _values(elsewhere), "ci95": _intervals(elsewhere)},
        seeds=_seeds(claim, runs[PUBLISHED], ours),
        note="" if ours is None else ours.note,
    )


def _seeds(claim: Claim, runs: Mapping[str, Mapping[int, Predictions]], ours: Measurement | None) -> int:
    """How many seeds a claim was measured on."""
    if claim.measure is None:
        return 0 if ours is None else ours.seeds
    return len(runs.get("v5", ()))


def _values(measurement: Measurement) -> dict[str, float | None]:
    return {name: figure.value for name, figure in measurement.figures.items()}


def _intervals(measurement: Measurement) -> dict[str, Range | None]:
    return {name: figure.interval for name, figure in measurement.figures.items()}


def _reproduced(claim: Claim, measurement: Measurement) -> dict[str, bool]:
    """Whether each published figure's range is touched by what was measured."""
    touched = {}
    for name, (low, high) in claim.published.items():
        if name in measurement.figures:
            figure = measurement.figures[name]
            below, above = figure.interval or (figure.value, figure.value)
            touched[name] = below is not None and above is not None and _meet((below, above), (low, high))
    return touched


def _meet(measured: Range, published: Range) -> bool:
    """Whether two ranges share a number; one published figure stands for what rounds to its digits."""
    low, high = published
    half = 0.5 * 10.0 ** -len(f"{low:g}".partition(".")[2]) if low == high else 0.0
    return measured[0] <= high + half and low - half <= measured[1]
