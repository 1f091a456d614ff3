"""How long a search takes: one query at a time, as a person waits for it, and 256 at once, as a service works it off.

Time depends on shapes, hardly on what the vectors hold, so it is taken once for each length of vectors, not for each
method. A machine has other work too, which makes a mean say more about that work than about the search: single queries
are asked in five rounds, 20 a round at most and 4 at least, until half a second is spent; what is told is the median of
all, and the medians of the fastest and the slowest round as its spread. A batch is timed three times if that is quick,
and the median kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from torch import Tensor

BATCH = 256
ROUNDS = 5
_SECONDS, _LEAST, _MOST = 0.5, 4, 20  # of all rounds together; queries per round
_REPEATS = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a query alone, and queries per second in batches.

    `latency_ms`: median over `timed` queries; `latency_low_ms` and `latency_high_ms`: medians of the fastest and the
    slowest of `ROUNDS` rounds; `latency_p95_ms`: 95th percentile, rough of so few.
    """

    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    latency_p95_ms: float
    queries_per_second: float
    timed: int


def time_search(search: Callable[[Tensor], Tensor], queries: Tensor) -> Timing:
    """Time a search that gives rows [q, k] for queries [q, D]; the first call of each kind is not counted.

    With fewer queries than a batch has they are asked again.
    """
    batch = _batch(queries)
    rounds = _rounds(search, batch)
    medians = [median(alone) for alone in rounds]
    every = np.concatenate(rounds)
    together = [_seconds(search, batch)]
    if together[0] < _SECONDS:
        together = [_seconds(search, batch) for _ in range(_REPEATS)]
    return Timing(
        latency_ms=1e3 * float(np.median(every)),
        latency_low_ms=1e3 * min(medians),
        latency_high_ms=1e3 * max(medians),
        latency_p95_ms=1e3 * float(np.quantile(every, 0.95)),
        queries_per_second=BATCH / median(together),
        timed=len(every),
    )


def time_alone(search: Callable[[Tensor], Tensor], queries: Tensor) -> float:
    """Milliseconds of a query alone, the median, as `time_search` takes it."""
    return 1e3 * float(np.median(np.concatenate(_rounds(search, _batch(queries)))))


def _batch(queries: Tensor) -> Tensor:
    return queries[[i % len(queries) for i in range(BATCH)]]


def _rounds(search: Callable[[Tensor], Tensor], batch: Tensor) -> list[list[float]]:
    search(batch[:1]).cpu()
    return [_round(search, batch, number) for number in range(ROUNDS)]


def _round(search: Callable[[Tensor], Tensor], batch: Tensor, number: int) -> list[float]:
    """Ask one query after another, other ones each round."""
    alone: list[float] = []
    while len(alone) < _LEAST or (len(alone) < _MOST and sum(alone) < _SECONDS / ROUNDS):
        at = (number * _MOST + len(alone)) % BATCH
        alone.append(_seconds(search, batch[at : at + 1]))
    return alone


def _seconds(search: Callable[[Tensor], Tensor], queries: Tensor) -> float:
    began = time.perf_counter()
    search(queries).cpu()  # waits for a GPU
    return time.perf_counter() - began
