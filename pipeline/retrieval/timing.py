"""How long a search takes: one query at a time, as a person waits for it, and 256 at once, as a service works it off.

Time depends on shapes, hardly on what the vectors hold, so it is taken once for each length of vectors, not for each
method. Single queries are timed until half a second is spent, 20 at least and 100 at most; of so few the 95th
percentile is rough. A batch is timed three times if that is quick, and the median kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from torch import Tensor

BATCH = 256
_SECONDS, _LEAST, _MOST = 0.5, 20, 100
_REPEATS = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a query alone (mean and 95th percentile over `timed` queries), queries a second in batches."""

    latency_ms: float
    latency_p95_ms: float
    queries_per_second: float
    timed: int


def time_search(search: Callable[[Tensor], Tensor], queries: Tensor) -> Timing:
    """Time a search that gives rows [q, k] for queries [q, D]; the first call of each kind is not counted.

    With fewer queries than a batch has they are asked again.
    """
    batch = queries[[i % len(queries) for i in range(BATCH)]]
    search(batch[:1]).cpu()
    alone: list[float] = []
    while len(alone) < _LEAST or (len(alone) < _MOST and sum(alone) < _SECONDS):
        at = len(alone) % BATCH
        alone.append(_seconds(search, batch[at : at + 1]))
    together = [_seconds(search, batch)]
    if together[0] < _SECONDS:
        together = [_seconds(search, batch) for _ in range(_REPEATS)]
    return Timing(
        latency_ms=1e3 * float(np.mean(alone)),
        latency_p95_ms=1e3 * float(np.quantile(alone, 0.95)),
        queries_per_second=BATCH / median(together),
        timed=len(alone),
    )


def _seconds(search: Callable[[Tensor], Tensor], queries: Tensor) -> float:
    began = time.perf_counter()
    search(queries).cpu()  # waits for a GPU
    return time.perf_counter() - began
