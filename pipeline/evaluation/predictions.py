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
from pipeline.evaluation.scores import Identity, LevelScore, PrefixScore, Score

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
    `origin`: where the gallery's rows come from, if the protocol makes a point of it.
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
    def outcomes(self) -> Floats:
        """1 where a prediction is correct, 0 where not, NaN where the text has no label on the level: [m, J, L]."""
        missing = self.labels[self.query_index] < 0
        return np.where(missing[:, None], np.nan, np.moveaxis(self.correct, 1, 0).astype(np.float64))

    @cached_property
    def steering(self) -> Floats:
        """What each prediction adds to S, its coarse and its fine gain, float64 [m, 3]; NaN without a finest label."""
        first, last = self.outcomes[:, 0], self.outcomes[:, -1]
        fine = last[:, -1] - first[:, -1]
        coarse = np.where(np.isnan(fine), np.nan, first[:, 0] - last[:, 0])
        return np.stack([coarse + fine, coarse, fine], axis=1)

    @cached_property
    def accuracy(self) -> Floats:
        """Share of correct predictions, of texts that have a label on the level, float64 [J, L]."""
        return metrics.accuracy(self.labels[self.query_index], self.predicted)

    @cached_property
    def interval(self) -> Floats:
        """95 % bootstrap intervals of the accuracies over texts, float64 [J, L, 2]."""
        return statistics.bootstrap_interval(self.outcomes, self.query_index)

    @cached_property
    def steerability(self) -> metrics.Steerability | None:
        """S with its two terms, over texts that have a finest label; None with one level or one prefix."""
        complete = self.labels[self.query_index, -1] >= 0
        labels = self.labels[self.query_index[complete]]
        return metrics.steerability(metrics.accuracy(labels, self.predicted[:, complete]))

    def score(
        self, identity: Identity, classifier: Sequence[Sequence[float | None]] | None = None, **more: Any
    ) -> Score:
        """Everything that follows, as one record.

        :param classifier: [J, L] accuracies of the head's own classifiers; None where there is none.
        :param more: further fields of the record.
        """
        labels = self.labels[self.query_index]
        accuracy, macro = self.accuracy, metrics.macro(labels, self.predicted)
        known = [np.flatnonzero(column >= 0) for column in labels.T]
        prefixes = tuple(
            PrefixScore(
                j + 1,
                dim,
                tuple(
                    LevelScore(
                        level=level,
                        accuracy=float(accuracy[j, level]),
                        ci95=_pair(self.interval[j, level]),
                        macro=float(macro[j, level]),
                        precision=float(self.matching[j, known[level], level].mean() / min(self.k, self.gallery)),
                        classifier=None if classifier is None else classifier[j][level],
                        n=len(np.unique(self.query_index[known[level]])),
                    )
                    for level in range(labels.shape[1])
                ),
            )
            for j, dim in enumerate(self.dims)
        )
        return Score(
            identity=identity,
            protocol=self.protocol,
            k=self.k,
            gallery=self.gallery,
            queries=self.queries,
            samples=self.samples,
            prefixes=prefixes,
            **self._steerability(),
            smallest_prefix=tuple(metrics.smallest_prefix(column, self.dims) for column in accuracy.T),
            origin=self.origin,
            **more,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays for `numpy.savez_compressed`, without pickles: some 50 KB for 4,500 texts."""
        facts = {name: getattr(self, name) for name in ("protocol", "k", "dims", "gallery", "samples", "origin")}
        facts["seed"] = 0  # of the bootstrap, as releases that could vary it read it
        most = int(max(self.labels.max(), self.predicted.max()))
        small = np.min_scalar_type(most) if self.labels.min() >= 0 else np.dtype(np.int32)  # -1: a label is missing
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
        facts.pop("seed", None)
        stored = {"labels": "labels", "query_index": "asked", "predicted": "predicted", "matching": "agreeing"}
        facts |= {field: arrays[name].astype(np.int64) for field, name in stored.items()}
        return cls(**facts)

    def _steerability(self) -> dict[str, Any]:
        if self.steerability is None:
            return dict.fromkeys((*STEERABILITY, *(f"{name}_ci95" for name in STEERABILITY)))
        intervals = statistics.bootstrap_interval(self.steering, self.query_index, span=(-STEERING_SPAN, STEERING_SPAN))
        ends = {f"{name}_ci95": _pair(interval) for name, interval in zip(STEERABILITY, intervals, strict=True)}
        return {**dict(zip(STEERABILITY, self.steerability, strict=True)), **ends}


def _pair(interval: Floats) -> tuple[float, float]:
    return float(interval[0]), float(interval[1])
