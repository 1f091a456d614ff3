"""Every single prediction of a measurement, and the figures that follow from them.

A protocol (`protocols.py`) returns predictions instead of shares: which query, which label, at every prefix and level.
Accuracies, intervals, paired tests, confusions and differences between galleries are all counted from them, so all of
them are of the same sample. It costs J x L integers per prediction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import metrics, statistics

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Origin = Literal["train", "held-out"]
STEERABILITY = ("steerability", "coarse_gain", "fine_gain")
STEERING_SPAN: Floats = np.array([2.0, 1.0, 1.0])
"""How far from 0 one prediction can move each of them."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Labels predicted by k nearest neighbours at J prefixes and L levels, and what follows from them.

    `gallery`: rows each query is compared with. `samples`: how often galleries were drawn. `labels`: int64 [t, L], of
    the t texts. `query_index`: int64 [m], which text each of the m predictions is of. `predicted`: int64 [J, m, L].
    `matching`: int64 [J, m, L], how many of the neighbours have the text's own label.
    `origin`: where the gallery's rows come from, if the protocol makes a point of it. `seed`: of the bootstrap.
    """

    ARRAYS: ClassVar = ("facts", "labels", "asked", "predicted", "agreeing")
    """Names of what `to_arrays` spells out."""

    protocol: str
    k: int
    dims: tuple[int, ...]
    gallery: int
    samples: int
    labels: Ints
    query_index: Ints
    predicted: Ints
    matching: Ints
    origin: Origin | None = None
    seed: int = 0

    @property
    def queries(self) -> int:
        """Queries in one sample."""
        return len(self.query_index) // self.samples

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Which predictions are correct, [J, m, L]."""
        correct: NDArray[np.bool_] = self.predicted == self.labels[self.query_index]
        return correct

    @cached_property
    def accuracy(self) -> Floats:
        """Share of correct predictions, float64 [J, L]."""
        return metrics.accuracy(self.labels[self.query_index], self.predicted)

    @cached_property
    def macro(self) -> Floats:
        """Mean over the classes that have a query of the accuracy of each, float64 [J, L]."""
        return metrics.macro(self.labels[self.query_index], self.predicted)

    @cached_property
    def precision(self) -> Floats:
        """Mean share of the neighbours that have the text's own label, float64 [J, L]."""
        return np.asarray(self.matching.mean(axis=1) / min(self.k, self.gallery), dtype=np.float64)

    @cached_property
    def interval(self) -> Floats:
        """95 % bootstrap intervals of the accuracies, float64 [J, L, 2]."""
        return statistics.bootstrap_interval(np.moveaxis(self.correct, 1, 0), self.query_index, seed=self.seed)

    @cached_property
    def steerability(self) -> metrics.Steerability | None:
        """S with its two terms; None with one level or one prefix."""
        return metrics.steerability(self.accuracy)

    @cached_property
    def smallest_prefix(self) -> tuple[int, ...]:
        """Per level, the fewest dimensions within one point of the full vector."""
        return tuple(metrics.smallest_prefix(column, self.dims) for column in self.accuracy.T)

    def to_dict(self, classifier: Sequence[Sequence[float | None]] | None = None) -> dict[str, Any]:
        """The scores as `score --json` prints them, without what names the run.

        :param classifier: [J, L] accuracies of the head's own classifiers, None where there is none.
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
                        "precision": float(self.precision[j, level]),
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

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays for `numpy.savez_compressed`, without pickles: some 50 KB for 4,500 texts."""
        facts = {
            name: getattr(self, name) for name in ("protocol", "k", "dims", "gallery", "samples", "origin", "seed")
        }
        small = np.min_scalar_type(int(max(self.labels.max(), self.predicted.max())))
        return {
            "facts": np.array(json.dumps(facts)),
            "labels": self.labels.astype(small),
            "asked": self.query_index.astype(np.int32),
            "predicted": self.predicted.astype(small),
            "agreeing": self.matching.astype(np.min_scalar_type(self.k)),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Predictions:
        """Read what `to_arrays` wrote."""
        facts: dict[str, Any] = json.loads(str(arrays["facts"]))
        facts["dims"] = tuple(facts["dims"])
        stored = {"labels": "labels", "query_index": "asked", "predicted": "predicted", "matching": "agreeing"}
        facts |= {field: arrays[name].astype(np.int64) for field, name in stored.items()}
        return cls(**facts)

    def _steerability(self) -> dict[str, Any]:
        if self.steerability is None:
            return dict.fromkeys((*STEERABILITY, *(f"{name}_ci95" for name in STEERABILITY)))
        intervals = statistics.bootstrap_interval(
            steering(self.correct), self.query_index, span=(-STEERING_SPAN, STEERING_SPAN), seed=self.seed
        )
        return {
            "steerability": self.steerability.total,
            "coarse_gain": self.steerability.coarse_gain,
            "fine_gain": self.steerability.fine_gain,
            **{f"{name}_ci95": interval.tolist() for name, interval in zip(STEERABILITY, intervals, strict=True)},
        }


def steering(correct: NDArray[Any]) -> Floats:
    """What each prediction adds to S, its coarse gain and its fine gain: float64 [m, 3], of `correct` [J, m, L]."""
    first, last = np.asarray(correct[0], dtype=np.float64), np.asarray(correct[-1], dtype=np.float64)
    coarse, fine = first[:, 0] - last[:, 0], last[:, -1] - first[:, -1]
    return np.stack([coarse + fine, coarse, fine], axis=1)
