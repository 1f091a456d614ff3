"""Every single answer of a measurement, and the figures that follow from them.

A protocol (`protocols.py`) asks texts and gets labels; what it hands on is not shares but answers: which text, which
label, at every prefix and level. Accuracies, intervals, paired tests between methods, confusions and differences
between galleries are then all counted from one record, and none of them can be of another sample than its neighbour.
It costs J x L integers an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import metrics, statistics

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Origin = Literal["train", "held-out"]


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of k nearest neighbours at J prefixes and L levels, and what follows from them.

    `gallery`: rows each query is compared with. `samples`: how often galleries were drawn. `labels`: int64 [t, L], of
    the t texts there are. `asked`: int64 [m], which text each of the m answers is about. `predicted`: int64 [J, m, L].
    `origin`: where the gallery's rows come from, if the protocol makes a point of it. `seed`: of the bootstrap.
    """

    protocol: str
    k: int
    dims: tuple[int, ...]
    gallery: int
    samples: int
    labels: Ints
    asked: Ints
    predicted: Ints
    origin: Origin | None = None
    seed: int = 0

    @property
    def queries(self) -> int:
        """Texts asked in one sample."""
        return len(self.asked) // self.samples

    @cached_property
    def times(self) -> Ints:
        """How often each text was asked, int64 [t]."""
        return np.bincount(self.asked, minlength=len(self.labels))

    @cached_property
    def hits(self) -> Ints:
        """How often each text was answered right, int64 [J, t, L]."""
        total = np.zeros((len(self.dims), *self.labels.shape), np.int64)
        right = self.predicted == self.labels[self.asked]
        for j, level in np.ndindex(len(self.dims), self.labels.shape[1]):
            total[j, :, level] = np.bincount(self.asked[right[j, :, level]], minlength=len(self.labels))
        return total

    @cached_property
    def accuracy(self) -> Floats:
        """Share of right answers, float64 [J, L]."""
        return metrics.accuracy(self.labels[self.asked], self.predicted)

    @cached_property
    def macro(self) -> Floats:
        """Mean over the classes asked of the accuracy of each, float64 [J, L]."""
        return metrics.macro(self.labels[self.asked], self.predicted)

    @cached_property
    def resampled(self) -> Floats:
        """Accuracies of the bootstrap's resamples of texts, float64 [draws, J, L]."""
        return resample(self.hits, self.times, self.seed)

    @cached_property
    def interval(self) -> Floats:
        """95 % intervals of the accuracies, float64 [J, L, 2]."""
        return statistics.percentile_interval(self.resampled)

    @cached_property
    def steerability(self) -> metrics.Steerability | None:
        """S with its two terms; None with one level or one prefix."""
        return metrics.steerability(self.accuracy)

    @cached_property
    def smallest_prefix(self) -> tuple[int, ...]:
        """Per level, the fewest dimensions within one point of the full vector."""
        return tuple(metrics.smallest_prefix(column, self.dims) for column in self.accuracy.T)

    def to_dict(self, classifier: Sequence[Sequence[float | None]] | None = None) -> dict[str, Any]:
        """Spell the scores out as `score --json` prints them, without what names the run.

        :param classifier: [J, L] accuracies of the head's own classifiers, to stand beside; None where there is none.
        """
        prefixes = [
            {
                "prefix": j + 1,
                "dim": dim,
                "levels": [
                    {
                        "level": level,
                        "accuracy": float(self.accuracy[j, level]),
                        "ci95": self.interval[j, level].tolist(),
                        "macro": float(self.macro[j, level]),
                        "classifier": None if classifier is None else classifier[j][level],
                    }
                    for level in range(self.labels.shape[1])
                ],
            }
            for j, dim in enumerate(self.dims)
        ]
        return {
            "protocol": self.protocol,
            "k": self.k,
            "gallery": self.gallery,
            "queries": self.queries,
            "samples": self.samples,
            **({} if self.origin is None else {"origin": self.origin}),
            "prefixes": prefixes,
            **self._steerability(),
            "smallest_prefix": list(self.smallest_prefix),
        }

    def _steerability(self) -> dict[str, Any]:
        if self.steerability is None:
            return dict.fromkeys(("steerability", "steerability_ci95", "coarse_gain", "fine_gain"))
        first, last = self.resampled[:, 0], self.resampled[:, -1]
        draws = first[:, 0] - last[:, 0] + last[:, -1] - first[:, -1]
        return {
            "steerability": self.steerability.total,
            "steerability_ci95": statistics.percentile_interval(draws).tolist(),
            "coarse_gain": self.steerability.coarse_gain,
            "fine_gain": self.steerability.fine_gain,
        }


def resample(hits: NDArray[np.number[Any]], times: NDArray[np.number[Any]], seed: int = 0) -> Floats:
    """Accuracies of resampled texts, float64 [draws, J, L], of right answers [J, t, L] out of times [t] asked."""
    prefixes, texts, levels = hits.shape
    outcomes = np.moveaxis(hits, 1, 0).reshape(texts, -1)
    return statistics.bootstrap_means(outcomes, times, seed=seed).reshape(-1, prefixes, levels)
