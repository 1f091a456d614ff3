"""A corpus of any size from the texts there are: drawn from them where it is smaller, expanded where it is larger.

A million documents with labels and this structure do not exist, so they are simulated, and every table that uses them
says so. A copy is made before the head, where the frozen backbone put the text (features at unit length, as heads get
them), so that each head maps it as it would map another text: its original's deviation from the class mean, plus a
random one of the finest class's own covariance, over the square root of two. Classes keep mean and covariance exactly
in expectation (Silverman 1986, Density Estimation, section 6.4.1: the smoothed bootstrap with its variance corrected,
at bandwidth 1), and two copies of one original are half as far apart, squared, as two texts of the class. What it
cannot bring: words that no text has.

A larger real corpus has more finest classes, too, and with the same ones a search would get easier as it grows. So new
ones come beside the old, with the `GROWTH` of ICD-10-CM's own. A new class is a copy of an old one, made in the same
way a level up: the mean of the old one deviates from that of its parent, and the new mean takes this deviation, plus a
random one of the covariance of such deviations, over the square root of two. The simulated documents of the old class
are shared out evenly among it and its new siblings. Coarser classes do not grow: a taxonomy of 21 chapters keeps them.

A class of few rows has a poor covariance; it counts as its rows less one, that of all classes together as 10 more.

The copies stream: a part is drawn, embedded, stored and forgotten, so a million documents take the memory of their
vectors. Parts have their own random numbers, so every head sees the same million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.retrieval.quantization import Stored, unit_prefixes

Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

PART = 1 << 14
"""Documents made at a time."""
GROWTH = 1 / 3
"""Finest classes grow with this power of the documents. Of ICD-10-CM's 97,449 titles a random 1,000 have 422 categories
and all 1,918: the power of 0.33."""
_PRIOR = 10
"""Degrees of freedom that the pooled covariance counts for."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """`size` documents, at least one: real texts, and simulated ones where there are not enough.

    `features` [n, H] and `labels` [n, L] are those of the real texts.
    """

    features: Singles
    labels: Ints
    size: int

    @property
    def simulated(self) -> int:
        """How many documents are copies."""
        return max(0, self.size - len(self.features))

    @cached_property
    def origins(self) -> Ints:
        """Which real text each document is, or is a copy of: int64 [size], the real ones first.

        Copies go round: every text has as many as any other, one more or less.
        """
        rng = np.random.default_rng([0, 0])
        count = len(self.features)
        if self.size <= count:
            return np.sort(rng.permutation(count)[: self.size])
        rounds = [rng.permutation(count) for _ in range(-(-self.simulated // count))]
        return np.concatenate([np.arange(count), *rounds])[: self.size]

    @cached_property
    def _classes(self) -> Ints:
        """Which class each real text is of, int64 [n]: a class is a label path, however deep it goes."""
        return np.unique(self.labels, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

    @cached_property
    def siblings(self) -> Ints:
        """How many new classes stand beside each class, int64 [K]; none beside one without a finest label."""
        finest = np.zeros(self._classes.max() + 1, np.int64)
        finest[self._classes] = self.labels[:, -1] >= 0
        known = np.flatnonzero(finest)
        grown = round(len(known) * (max(1.0, self.size / len(self.features)) ** GROWTH - 1))
        order = np.random.default_rng([0, 2]).permutation(known)
        return np.bincount(np.resize(order, grown), minlength=len(finest)) if len(known) else finest

    @cached_property
    def kinds(self) -> Ints:
        """Which new class each document is of, int64 [size]; -1: it is of its original's."""
        real = min(self.size, len(self.features))
        beside = self.siblings[self._classes[self.origins]]
        drawn = np.random.default_rng([0, 3]).integers(0, beside + 1) - 1
        drawn[:real] = -1
        first = np.cumsum(self.siblings) - self.siblings
        return np.where(drawn < 0, -1, first[self._classes[self.origins]] + drawn)

    @cached_property
    def document_labels(self) -> NDArray[np.int32]:
        """int32 [size, L]; finest labels of new classes follow those there are."""
        labels = self.labels[self.origins].astype(np.int32)
        labels[:, -1] = np.where(self.kinds < 0, labels[:, -1], self.labels[:, -1].max() + 1 + self.kinds)
        return labels

    def parts(self) -> Iterator[tuple[slice, Singles]]:
        """Features of the documents, a part at a time: which, and float32 [n, H] of unit length."""
        real = min(self.size, len(self.features))
        for start in range(0, real, PART):
            part = slice(start, min(start + PART, real))
            yield part, _unit(self.features[self.origins[part]])
        for number, start in enumerate(range(real, self.size, PART)):
            part = slice(start, min(start + PART, self.size))
            rng = np.random.default_rng([0, 1, number])
            yield part, self._jitter.copies(self.origins[part], self.kinds[part], rng)

    @cached_property
    def _jitter(self) -> _Jitter:
        parents = np.unique(self.labels[:, :-1], axis=0, return_inverse=True)[1].reshape(-1)
        rng = np.random.default_rng([0, 4])
        return _Jitter(_unit(self.features), self._classes, parents, self.siblings, rng)

    def embedded(
        self, embed: Callable[[Singles], Singles], dim: int, device: str | torch.device = "cpu",
        progress: Callable[[int], None] | None = None,
    ) -> Stored:  # fmt: skip
        """The documents' vectors, normalised, in float32.

        :param embed: from features [n, H] to vectors [n, D], D at least `dim`.
        :param dim: dimensions kept.
        :param device: where to keep them.
        :param progress: told the number of documents embedded.
        """
        codes = torch.empty((self.size, dim), device=device)
        for part, features in self.parts():
            codes[part] = unit_prefixes(embed(features), dim, codes.device)
            if progress is not None:
                progress(part.stop)
        return Stored(codes, None)


class _Jitter:
    """Draws copies of texts, each class with its own covariance, in their class or in a new one beside it."""

    def __init__(self, units: Singles, classes: Ints, parents: Ints, siblings: Ints, rng: np.random.Generator) -> None:
        self._order = np.argsort(classes, kind="stable")
        counts = np.bincount(classes)
        self._stops = np.cumsum(counts)
        self._counts, self._classes = counts, classes
        sums = np.zeros((len(counts), units.shape[1]), np.float64)
        np.add.at(sums, classes, units)
        self._means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        self._deviations = units - self._means[classes]
        within = self._deviations.astype(np.float64)
        freedom = max(1, len(units) - int((counts > 0).sum()))
        variances, axes = np.linalg.eigh(within.T @ within / freedom)
        self._pooled = (np.sqrt(np.maximum(variances, 0))[:, None] * axes.T).astype(np.float32)

        self._new_means = self._siblings(parents, siblings, rng)

    def _siblings(self, parents: Ints, siblings: Ints, rng: np.random.Generator) -> Singles:
        """Means of the new classes, float32 [m, H], those beside one class after another.

        :param parents: of each text, [n].
        """
        parent_of = np.zeros(len(self._counts), np.int64)
        parent_of[self._classes] = parents
        held = np.bincount(parent_of)
        centres = np.zeros((len(held), self._means.shape[1]), np.float64)
        np.add.at(centres, parent_of, self._means)
        centres /= held[:, None]
        deviations = self._means - centres[parent_of]
        freedom = max(1, len(self._means) - len(held))
        old = np.repeat(np.arange(len(siblings)), siblings)
        random = rng.standard_normal((len(old), len(deviations))) @ deviations / np.sqrt(freedom)
        return np.asarray(centres[parent_of[old]] + (deviations[old] + random) / np.sqrt(2), np.float32)

    def copies(self, origins: Ints, kinds: Ints, rng: np.random.Generator) -> Singles:
        """A copy of each origin in the new class that `kinds` names, or in its own; float32 [n, H] of unit length."""
        classes = self._classes[origins]
        freedom = self._counts[classes] - 1
        own = np.sqrt(freedom / (freedom + _PRIOR)).astype(np.float32)
        noise = rng.standard_normal((len(origins), len(self._pooled)), dtype=np.float32) @ self._pooled
        noise *= np.sqrt(1 - own**2)[:, None]
        order = np.argsort(classes, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(classes[order])) + 1):
            noise[group] += own[group, None] * self._of_class(int(classes[group[0]]), len(group), rng)
        means = self._means[classes]
        means[kinds >= 0] = self._new_means[kinds[kinds >= 0]]
        return _unit(means + (self._deviations[origins] + noise) / np.float32(np.sqrt(2)))

    def _of_class(self, number: int, copies: int, rng: np.random.Generator) -> Any:
        """Random deviations of the class's sample covariance: its rows, mixed by independent normal weights."""
        count = int(self._counts[number])
        rows = self._deviations[self._order[self._stops[number] - count : self._stops[number]]]
        weights = rng.standard_normal((copies, count), dtype=np.float32)
        return weights @ rows / np.float32(np.sqrt(max(count - 1, 1)))


def _unit(features: Singles) -> Singles:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1), np.float32)
