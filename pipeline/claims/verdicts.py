"""What became of the published claims here: measured figures beside the published ones, and a verdict each.

Three verdicts are good ones. *reproduced*: the claim's test is passed and every published figure that was measured is
within the published range, to the digits that were published. *order holds*: the test is passed, the figures are
others. *equal by construction*: the test is passed and could not have failed. Figures were published for one dataset
and two backbones, so order is all that one can expect elsewhere.

All accuracies were published in leave-one-out over 500 texts. A claim that holds there and not with the training split
as gallery, where an index would be, holds *only under the published protocol*. Claims on cost and search are measured
elsewhere (`pipeline.cost`, `pipeline.retrieval`) and judged here by the same rule; they have one protocol, which their
row spells out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.claims.published import CLAIMS, Claim, Measurement, Range
from pipeline.evaluation.comparison import Entry, Runs, first_of, seeds_in_common
from pipeline.evaluation.predictions import Predictions

PUBLISHED, ELSEWHERE = "leave-one-out", "gallery"
REPRODUCED, ORDER, BY_CONSTRUCTION = "reproduced", "order holds", "equal by construction"
ONLY_PUBLISHED = ", only under the published protocol"
FAILS = "does not hold"
NOT_MEASURED = "not measured here"
BESIDE = ("lda", "pca*")
"""Methods whose figures are measured beside those of a claim on accuracy: what takes no training."""


@dataclass(frozen=True)
class Judged:
    """A claim with what was measured: a row of `reproduce --json`.

    `measured` and `ci95` are by figure, under `protocol`; `elsewhere` holds the same for the other protocol.
    `reproduced` says by figure whether it is within the published range, to the digits that were published.
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


def verdict(claim: Claim, published: Measurement | None, elsewhere: Measurement | None) -> str:
    """Judge a claim by what was measured under the published protocol and under the other one.

    A claim that fails where it was made does not hold, whatever happens elsewhere.
    """
    if published is None:
        return NOT_MEASURED
    if not published.passed:
        return FAILS
    if claim.by_construction:
        return BY_CONSTRUCTION
    found = REPRODUCED if all(_reproduced(claim, published).values()) else ORDER
    return found + ONLY_PUBLISHED if elsewhere is not None and not elsewhere.passed else found


def judge(
    entries: Mapping[str, Sequence[Entry]], others: Mapping[str, Measurement] | None = None
) -> tuple[Judged, ...]:
    """Judge every claim, in the order of the table.

    :param entries: runs by protocol ("leave-one-out", "gallery"); methods other than v5, mrl and `BESIDE` are ignored.
    :param others: measurements by claim id, of claims that are not about accuracy.
    :raises PipelineError: if v5 and mrl were both scored but share no seed.
    """
    runs = {protocol: _pairs(entries.get(protocol, ())) for protocol in (PUBLISHED, ELSEWHERE)}
    return tuple(_judged(claim, runs, (others or {}).get(claim.id)) for claim in CLAIMS)


def _pairs(entries: Sequence[Entry]) -> dict[str, Runs]:
    """Predictions of v5 and mrl by seed, for the seeds that both have, and of `BESIDE`; empty if one has no run."""
    runs: dict[str, dict[int | None, Predictions]] = {"v5": {}, "mrl": {}}
    for entry in entries:
        if entry.method in (*runs, *BESIDE):
            runs.setdefault(entry.method, {})[entry.seed] = entry.predictions
    if not (runs["v5"] and runs["mrl"]):
        return {}
    seeds = seeds_in_common(runs["v5"], runs["mrl"], ("v5", "mrl"))
    pair = {method: {seed: runs[method][seed] for seed in seeds} for method in ("v5", "mrl")}
    dims = {*first_of(pair["v5"]).dims}
    beside = {name: of for name, of in runs.items() if name in BESIDE and dims <= {*first_of(of).dims}}
    return {**pair, **beside}


def _judged(claim: Claim, runs: Mapping[str, Mapping[str, Runs]], other: Measurement | None) -> Judged:
    found = {PUBLISHED: other, ELSEWHERE: None}
    if claim.measure is not None:
        found = {
            protocol: claim.measure(predictions) if predictions else None for protocol, predictions in runs.items()
        }
    ours, elsewhere = found[PUBLISHED], found[ELSEWHERE]
    seeds = len(runs[PUBLISHED].get("v5", ())) if claim.measure is not None else 0 if ours is None else ours.seeds
    row = Judged(
        claim.id, claim.claim, claim.published, None, None, None, verdict(claim, ours, elsewhere), claim.tested,
        elsewhere=None if elsewhere is None else {"protocol": ELSEWHERE, **_spelled(elsewhere)}, seeds=seeds,
    )  # fmt: skip
    if ours is None:
        return row
    protocol = ours.protocol if claim.measure is None else PUBLISHED
    return replace(row, protocol=protocol, reproduced=_reproduced(claim, ours), note=ours.note, **_spelled(ours))


def _spelled(measurement: Measurement) -> dict[str, Any]:
    """Values and intervals by figure."""
    figures = measurement.figures.items()
    return {
        "measured": {name: one.value for name, one in figures},
        "ci95": {name: one.interval for name, one in figures},
    }


def _reproduced(claim: Claim, measurement: Measurement) -> dict[str, bool]:
    """Whether each published figure that was measured is within its range, to the digits that were published."""
    within = {}
    for name, (low, high) in claim.published.items():
        if name in measurement.figures:
            value = measurement.figures[name].value
            half = 0.5 * 10.0 ** -max(len(f"{end:g}".partition(".")[2]) for end in (low, high))
            within[name] = value is not None and low - half <= value <= high + half
    return within
