"""Outcomes of several seeds put together: mean, SD over seeds, and an interval over seeds and texts.

As everywhere here (`pipeline.claims`), a 95 % interval covers another seed and other texts at once: the half-widths of
Student's interval over seeds and of the normal one over texts, whose means have a thousand terms, are added as
independent errors are. It does not leave the range of what is averaged, and where all texts have one and the same value
it is as long as `statistics.unseen` allows: a recall that was 1 for each of some texts is not thereby certain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import statistics
from pipeline.retrieval.measures import Outcome

Floats = NDArray[np.floating[Any]]
_NORMAL = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and texts; `sd` over seeds, None of one."""

    value: float
    sd: float | None
    ci95: tuple[float, float]


def estimate(values: Floats, span: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """Estimate a mean from values [seeds, texts]; a text that has none (NaN) is left out.

    One seed has the interval over texts alone. `span`: least and greatest value that a text can have.
    """
    known = np.asarray(values, np.float64)
    known = known[:, ~np.isnan(known).any(axis=0)]
    if not known.size:
        return Estimate(math.nan, None, (math.nan, math.nan))
    by_text, seeds = known.mean(axis=0), statistics.paired_test(known.mean(axis=1))
    texts = _NORMAL * float(by_text.std(ddof=1)) / math.sqrt(len(by_text)) if len(by_text) > 1 else 0.0
    around = 0.0 if seeds.interval is None else seeds.interval[1] - seeds.mean
    hidden = [abs(float(end) - seeds.mean) for end in statistics.unseen(seeds.mean, len(by_text), span)]
    below, above = (math.hypot(max(texts, one), around) for one in hidden)
    return Estimate(seeds.mean, seeds.sd, (max(span[0], seeds.mean - below), min(span[1], seeds.mean + above)))


def record(outcomes: Sequence[Outcome], *, itself: bool = False) -> dict[str, Any]:
    """The figures of one way to search, of one outcome a seed, as `--json` prints them.

    `itself`: it is the search that recall compares with, whose recall is 1 by definition.

    `precision_at_10` and `level_recall` are lists, a level each, coarsest first; None where a level has no figure.
    """
    recall = estimate(np.stack([o.recall for o in outcomes]))
    columns = {"precision": _by_level([o.precision for o in outcomes])}
    spelled: dict[str, Any] = {
        "recall_at_10": recall.value,
        "recall_sd": recall.sd,
        "recall_ci95": [1.0, 1.0] if itself else list(recall.ci95),
        "precision_at_10": [e.value for e in columns["precision"]],
    }
    kept = [o.level_recall for o in outcomes if o.level_recall is not None]
    if kept:
        columns["level_recall"] = _by_level(kept)
        spelled["level_recall"] = [_number(e.value) for e in columns["level_recall"]]
    for name, levels in columns.items():
        spelled[f"{name}_sd"] = [e.sd for e in levels]
        spelled[f"{name}_ci95"] = [None if math.isnan(e.value) else list(e.ci95) for e in levels]
    return spelled


def _by_level(arrays: Sequence[Floats]) -> list[Estimate]:
    stacked = np.stack(arrays)
    return [estimate(stacked[:, :, level]) for level in range(stacked.shape[2])]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
