"""The published claims, each with what it would take to believe it here.

The source is a document called "Efficiency Analysis: V5 vs MRL"; it names no author and does not say what V5
abbreviates. V5 trains short prefixes on coarse labels and the full vector on the finest.

A claim is a row: its figures as published, the quantity behind them, and a test of what it says about the two methods,
which a reader would act on. The row's `tested` spells the test out, and it must be passed with 95 % confidence, not
just on average. `verdicts.py` judges.

Intervals cover another seed and other texts at once (`pipeline.evaluation.statistics.estimate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.comparison import Runs, first_of
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.statistics import Estimate, estimate

Floats = NDArray[np.float64]
Range = tuple[float, float]
Quantity = Callable[[Predictions], Floats]

DIFFERENCE = "v5 - mrl"
PERCENT, POINTS = "%", "points"
"""Units in which a person reads shares, and differences between shares."""
_SHARES = ("recall@10", "precision@10", " kept")
TARGET = 0.96
"""Coarse accuracy of the claim on storage."""


@dataclass(frozen=True)
class Figure:
    """A measured number with its 95 % interval; None where it was never reached, or has no interval."""

    value: float | None
    interval: Range | None

    @classmethod
    def of(cls, found: Estimate) -> Figure:
        """An estimate without what a claim does not say."""
        return cls(found.value, found.interval)

    def above(self, bound: float = 0.0) -> bool:
        """Whether the whole interval lies above a bound."""
        return self.interval is not None and self.interval[0] > bound

    def below(self, bound: float = 0.0) -> bool:
        """Whether the whole interval lies below a bound."""
        return self.interval is not None and self.interval[1] < bound


@dataclass(frozen=True)
class Measurement:
    """What a claim was measured to be: its figures by name, and whether its test was passed.

    Of claims that are not about accuracy: `protocol` says how it was measured, `note` what a reader should know
    besides, and `seeds` is n, 0 where nothing was trained for it.
    """

    figures: Mapping[str, Figure]
    passed: bool
    protocol: str | None = None
    note: str = ""
    seeds: int = 0


@dataclass(frozen=True)
class Claim:
    """One published claim.

    `published`: ranges by figure, in the unit of the claim (accuracies as shares). `tested`: what the verdict is about.
    `unit`: in which a person reads its figures, `units` of those that have another. `by_construction`: both methods do
    the same there, so that no measurement could tell otherwise.
    `measure`: from the answers of v5 and mrl by seed; None if the figures are not
    of accuracy, in which case whoever measures them hands a `Measurement` to `judge`.
    """

    id: str
    claim: str
    published: Mapping[str, Range]
    tested: str
    unit: str
    measure: Callable[[Mapping[str, Runs]], Measurement | None] | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    by_construction: bool = False

    def unit_of(self, figure: str) -> str:
        """The unit of one of its figures; what a search finds and keeps are shares, whatever the claim is about."""
        if figure in self.units:
            return self.units[figure]
        if self.unit == PERCENT or any(word in figure for word in _SHARES):
            return POINTS if figure.startswith(DIFFERENCE) else PERCENT
        return "" if figure.endswith(", %") else self.unit


def _measure(runs: Mapping[str, Runs], quantity: Quantity, span: Range = (0.0, 1.0)) -> dict[str, Figure]:
    """The quantity of v5, of mrl, their difference, and what is beside them, over the same texts; one is in `span`."""
    values = {name: np.stack([quantity(predictions) for predictions in of.values()]) for name, of in runs.items()}
    first, reach = first_of(runs["v5"]), span[1] - span[0]
    measured = [(name, of, span) for name, of in values.items()]
    measured.insert(2, (DIFFERENCE, values["v5"] - values["mrl"], (-reach, reach)))
    return {name: Figure.of(estimate(of, first.query_index, span=within)) for name, of, within in measured}


def _accuracy(predictions: Predictions, dim: int, level: int) -> Floats:
    return predictions.outcomes[:, predictions.dims.index(dim), level]


def _has(runs: Mapping[str, Runs], *dims: int) -> bool:
    """Whether the prefixes that a claim is about were scored, and the two levels."""
    predictions = [a for by_seed in runs.values() for a in by_seed.values()]
    return all(set(dims) <= set(a.dims) and a.labels.shape[1] > 1 for a in predictions)


def _tested(
    dims: Sequence[int], quantity: Quantity, test: Callable[[Mapping[str, Figure]], bool], span: Range = (0.0, 1.0)
) -> Callable[[Mapping[str, Runs]], Measurement | None]:
    """How a claim about one quantity is measured: where these prefixes were scored, by a test of its figures."""

    def measure(runs: Mapping[str, Runs]) -> Measurement | None:
        if not _has(runs, *dims):
            return None
        figures = _measure(runs, quantity, span)
        return Measurement(figures, test(figures))

    return measure


_coarse_64 = _tested((64,), lambda found: _accuracy(found, 64, 0), lambda figures: figures[DIFFERENCE].above())
_fine_64 = _tested((64,), lambda found: _accuracy(found, 64, -1), lambda figures: figures[DIFFERENCE].below())
_coarse_loss = _tested(
    (64, 256),
    lambda found: _accuracy(found, 256, 0) - _accuracy(found, 64, 0),
    lambda figures: figures["v5"].below(0.02) and figures[DIFFERENCE].below(),
    (-1.0, 1.0),
)


def _steering(runs: Mapping[str, Runs]) -> Measurement | None:
    if not _has(runs, 64, 256):
        return None
    alike = {name: of for name, of in runs.items() if first_of(of).dims == first_of(runs["v5"]).dims}
    figures = _measure(alike, lambda predictions: predictions.steering[:, 0], (-2.0, 2.0))
    return Measurement(figures, figures["v5"].above() and figures[DIFFERENCE].above())


def _min_storage(runs: Mapping[str, Runs]) -> Measurement | None:
    """Fewest dimensions whose mean coarse accuracy over seeds reaches the target; None if none does."""
    if not _has(runs, 64, 256):
        return None
    dims = first_of(runs["v5"]).dims
    by_dim = {dim: _measure(runs, lambda predictions, dim=dim: _accuracy(predictions, dim, 0)) for dim in dims}  # type: ignore[misc]
    needed = {
        method: next((dim for dim in dims if (by_dim[dim][method].value or 0) >= TARGET), None) for method in runs
    }
    reached = by_dim[64]["v5"].above(TARGET)
    missed = all(by_dim[dim]["mrl"].below(TARGET) for dim in dims if dim < 256)
    return Measurement({name: Figure(dim, None) for name, dim in needed.items()}, reached and missed)


CLAIMS = (
    Claim(
        "training-tie",
        "training costs the same: four backbone passes per batch of 24, heads and losses 0.001 % apart (GFLOPs)",
        {"v5": (360.03, 360.03), "mrl": (360.04, 360.04)},
        "with four backbone passes per anchor, v5 and mrl differ by no more than 0.001 % per batch",
        "GFLOP",
        by_construction=True,
    ),
    Claim(
        "loss-flops",
        "losses cost less with V5, 2 terms against 5 (MFLOPs per batch)",
        {"v5": (1.36, 1.36), "mrl": (3.4, 3.4)},
        "v5's losses take fewer products than mrl's",
        "MFLOP",
    ),
    Claim(
        "head-backward",
        "the head's backward pass costs less with V5 (MFLOPs)",
        {"v5": (10, 10), "mrl": (12, 12)},
        "the head's backward pass takes fewer products per text with v5 than with mrl",
        "MFLOP",
    ),
    Claim(
        "encoding",
        "encoding a text of 128 tokens costs the same (GFLOPs, backbone and head)",
        {"v5": (90, 90), "mrl": (90, 90)},
        "a text of 128 tokens takes the same products with v5 and with mrl",
        "GFLOP",
        by_construction=True,
    ),
    Claim(
        "search-cost",
        "a search costs 2 d N FLOPs per query (FLOPs per document at each length)",
        {"64": (128, 128), "128": (256, 256), "256": (512, 512)},
        "an exact search multiplies and adds 2 d times per document, counted while it runs",
        "FLOP",
        by_construction=True,
    ),
    Claim(
        "storage",
        "4 bytes per dimension (bytes per document at each length)",
        {"64": (256, 256), "128": (512, 512), "256": (1024, 1024)},
        "a stored float32 vector takes 4 bytes per dimension",
        "bytes",
        by_construction=True,
    ),
    Claim(
        "coarse-64",
        "coarse accuracy at 64 dims: V5 96-98 %, MRL 89-91 %",
        {"v5": (0.96, 0.98), "mrl": (0.89, 0.91), DIFFERENCE: (0.05, 0.09)},
        "v5 is ahead of mrl on the coarsest level at 64 dims",
        PERCENT,
        _coarse_64,
    ),
    Claim(
        "fine-64",
        "fine accuracy at 64 dims: V5 54 %, MRL 65-69 %",
        {"v5": (0.535, 0.545), "mrl": (0.65, 0.69), DIFFERENCE: (-0.155, -0.105)},
        "mrl is ahead of v5 on the finest level at 64 dims",
        PERCENT,
        _fine_64,
    ),
    Claim(
        "coarse-loss",
        "coarse accuracy lost from 256 to 64 dims: V5 under 2 points, MRL 7-9",
        {"v5": (-1.0, 0.02), "mrl": (0.07, 0.09)},
        "v5 loses under 2 points of coarse accuracy from 256 to 64 dims, and less than mrl",
        POINTS,
        _coarse_loss,
    ),
    Claim(
        "two-stage",
        "1M documents, 1,000 candidates by 64 dims: relevant documents kept by the coarse filter, V5 98 % against MRL "
        "91 %, re-ranked by 256 dims at 128.5 MFLOPs per query",
        {"v5": (0.98, 0.98), "mrl": (0.91, 0.91), "MFLOPs at a million": (128.5, 128.5)},
        "of the candidates that a 64-dim filter keeps, more are of the query's coarsest class with v5 than with mrl",
        PERCENT,
        units={"MFLOPs at a million": "MFLOP"},
    ),
    Claim(
        "two-stage-recall",
        "the same, recall read as recall@10 against the method's own full vector",
        {"v5": (0.98, 0.98), "mrl": (0.91, 0.91)},
        "filtered by 64 dims to 0.1 % of the documents, v5's recall@10 is above mrl's",
        PERCENT,
    ),
    Claim(
        "compensation",
        "to match, MRL needs 2,000 candidates, 129 MFLOPs, or a 128-dim filter, 256.5 (MFLOPs per query)",
        {"2,000 candidates": (129, 129), "128 dims": (256.5, 256.5)},
        "mrl keeps less of the coarsest class than v5, and as much with twice the candidates or a 128-dim filter",
        PERCENT,
        units={"2,000 candidates": "MFLOP", "128 dims": "MFLOP"},
    ),
    Claim(
        "compensation-recall",
        "the same, recall read as recall@10 against the method's own full vector",
        {"mrl's candidates / v5's": (2, 2)},
        "for the recall of v5's 0.1 % candidates mrl needs more",
        "times",
    ),
    Claim(
        "min-storage",
        "96 % coarse accuracy takes 64 dims (256 bytes) with V5, 256 dims (1 KB) with MRL (dims)",
        {"v5": (64, 64), "mrl": (256, 256)},
        "v5 reaches 96 % coarse accuracy with 64 dims, mrl with no fewer than 256",
        "dims",
        _min_storage,
    ),
    Claim(
        "steerability",
        "S = +15.0 (BGE-small) to +15.3 points (Qwen3-Embedding-0.6B) with V5, +0.7 to +0.8 with MRL",
        {"v5": (0.122, 0.178), "mrl": (-0.009, 0.023)},
        "v5's steerability is above 0 and above mrl's",
        POINTS,
        _steering,
    ),
)
