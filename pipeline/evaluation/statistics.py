"""How sure a figure is: intervals, tests and effect sizes.

Two things vary when an accuracy is measured again: the texts that are queried and the seed that trained the head. Texts
are resampled (bootstrap); seeds are few, so Student's t is used for them. `estimate` is the one interval over both: the
half-widths are added as independent errors are, as the root of the sum of their squares. Everything that says "ahead"
or "worse" here rests on such an interval of paired differences over the same texts (`sign`).

A text that is queried several times, in overlapping samples, is still one text: it is resampled with all its
predictions, and these among themselves (a bootstrap of two stages). With the first stage alone 95 % intervals of
leave-one-out covered 86-93 % in simulation, because such texts are one another's neighbours too; with both 93-98 %.

Resampling knows only the outcomes it was shown: where all predictions are correct it says [1, 1]. An outcome that none
of n texts had may still have a probability of up to 1 - (a/2)^(1/n), the end of the exact binomial interval of none in
n (Clopper and Pearson, 1934). No interval is shorter than what such an outcome could move the mean by.

What makes 4,000 resamples cheap, and exact: texts of the same outcome are interchangeable, so where each text has one
prediction a resample is one multinomial draw over the few distinct outcomes (0.5 ms per column). Where texts have
several, a resample is a count per prediction: drawn once for all columns that are asked of the same texts (0.4 s for
10,000 predictions, 40 MB kept), and then one matrix product. Callers therefore pass many columns at once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import PipelineError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TAILS = ((1 - 0.95) / 2, (1 + 0.95) / 2)
"""Shares of resampled means below the ends of a 95 % interval."""
RESAMPLES = 4000
"""Bootstrap resamples: the ends of a 95 % interval are then themselves good to 1 % of its width."""
TOLERANCE = 1e-9
"""Differences nearer to one another are the same: shares of texts differ by far more, and rounding by far less."""
_BLOCK = 8_000_000
"""Counts drawn at once, one byte each; twelve such blocks are kept."""
_EXACT = 1 << 24
"""Below it float32 adds whole numbers exactly, such as outcomes of 0 and 1, in half the time."""


def bootstrap_interval(
    values: ArrayLike,
    query_index: Ints | None = None,
    *,
    span: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
) -> Floats:
    """Percentile intervals of means, by resampling texts; at least as long as `unobserved_bounds`.

    :param values: [m] or [m, ...], outcomes of m predictions: correct or not, or a difference between two such;
        NaN where a text has none, such as a label it lacks, which leaves it out.
    :param query_index: int64 [m], which text each prediction is of; by default each has its own.
    :param span: least and greatest outcome there can be, numbers or arrays [...]; of differences (-1, 1).
    :returns: [..., 2], the ends between which 95 % of the resampled means lie; the same for the same arguments.
    :raises PipelineError: if there is no answer.
    """
    outcomes = np.asarray(values, dtype=np.float64)
    if not len(outcomes):
        raise PipelineError("no prediction to resample", "score at least one query")
    columns = outcomes.reshape(len(outcomes), -1)
    known = ~np.isnan(columns)
    of = np.arange(len(outcomes)) if query_index is None else np.unique(query_index, return_inverse=True)[1]
    if of.max() + 1 == len(of):
        texts = known.sum(axis=0)
        ends = np.array([_of_single(column[there]) for column, there in zip(columns.T, known.T, strict=True)])
    else:
        texts = np.array([np.count_nonzero(np.bincount(of[there])) for there in known.T])
        ends = _of_several(columns, known, of)
    shape, counts = outcomes.shape[1:], known.sum(axis=0)
    sums = np.where(known, columns, 0.0).sum(axis=0)
    means = np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0).reshape(shape)
    low, high = np.moveaxis(ends.reshape(*shape, 2), -1, 0)
    least, most = unobserved_bounds(means, np.maximum(texts, 1).reshape(shape), span)
    return np.stack([np.minimum(low, least), np.maximum(high, most)], axis=-1)


def unobserved_bounds(
    means: ArrayLike, texts: ArrayLike, span: tuple[ArrayLike, ArrayLike] = (0.0, 1.0)
) -> tuple[Floats, Floats]:
    """How low and how high means over n texts may be for an outcome at an end of `span` that none of the texts had.

    :returns: [...] each, as `means`. With means and span of 0 and 1, the ends of Clopper and Pearson's interval.
    """
    share = 1 - _TAILS[0] ** (1 / np.asarray(texts, np.float64))
    values, (low, high) = np.asarray(means, np.float64), (np.asarray(end, np.float64) for end in span)
    return values - share * (values - low), values + share * (high - values)


def _of_single(outcomes: Floats) -> Floats:
    """Ends of the mean of t texts with one outcome each, [t]; NaN for none."""
    if not len(outcomes):
        return np.full(2, np.nan)
    distinct, counts = np.unique(np.round(outcomes, 9), return_counts=True)
    return _ends_of_counts(tuple(distinct.tolist()), tuple(counts.tolist()))


@lru_cache(maxsize=4096)
def _ends_of_counts(distinct: tuple[float, ...], counts: tuple[int, ...]) -> Floats:
    """The same from how many texts had each outcome, which is all that counts; a page asks for many twice or more."""
    n = sum(counts)
    totals = np.random.default_rng(0).multinomial(n, np.array(counts) / n, size=RESAMPLES) @ np.array(distinct)
    ends: Floats = np.quantile(totals / n, _TAILS)
    ends.flags.writeable = False
    return ends


def _of_several(columns: Floats, known: NDArray[np.bool_], of: Ints) -> Floats:
    """Ends of the means of columns [m, columns] of predictions of texts `of`, resampled in two stages, [columns, 2].

    A resample's mean is over what its texts have an outcome of; a resample without any does not count.
    """
    filled, whole = np.where(known, columns, 0.0), known.all()
    largest = np.abs(filled).max() * len(of) * np.bincount(of).max()  # that a resample's sum could be
    if largest < _EXACT and (filled == np.rint(filled)).all():
        filled = filled.astype(np.float32)
    means = np.empty((RESAMPLES, columns.shape[1]))
    step = max(1, min(RESAMPLES, _BLOCK // len(of)))
    room = np.empty((step, len(of)), filled.dtype)  # written over: fresh memory would cost as much as the product
    for start in range(0, RESAMPLES, step):
        counts = room[: min(step, RESAMPLES - start)]
        counts[:] = _resamples(of.tobytes(), len(counts), start)
        drawn = counts.sum(axis=1, keepdims=True) if whole else counts @ known
        with np.errstate(invalid="ignore"):
            found = (counts @ filled).astype(np.float64) / drawn
        means[start : start + step] = np.round(found, 9)  # what is equal is equal in any order
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a column may have no outcome at all
        return np.asarray(np.nanquantile(means, _TAILS, axis=0).T)


@lru_cache(maxsize=12)
def _resamples(of: bytes, draws: int, start: int) -> NDArray[np.uint8]:
    """How often each of m predictions is in each resample from the `start`-th on, [draws, m].

    Texts are drawn, then of each text drawn as many of its predictions as it has.

    :param of: int64 [m], the text of each prediction, from 0 up without a gap, as bytes, so that it can be a key.
    """
    text = np.frombuffer(of, np.int64)
    order, times = np.argsort(text, kind="stable"), np.bincount(text)
    starts, texts = np.cumsum(times) - times, len(times)
    rng = np.random.default_rng((0, start))
    counts = np.empty((draws, len(text)), np.uint8)  # expected counts are 1: none comes near 255
    for row in counts:
        picked = rng.integers(0, texts, texts)
        choices = times[picked]
        first, width = np.repeat(starts[picked], choices), np.repeat(choices, choices)
        within = (rng.random(len(first), dtype=np.float32) * width).astype(np.int64)
        row[order] = np.bincount(first + within, minlength=len(text))
    return counts


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds and over texts with its 95 % interval; `sd` over seeds, None for one."""

    value: float
    low: float
    high: float
    sd: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return self.low, self.high


def estimate(
    values: ArrayLike,
    query_index: Ints | None = None,
    *,
    span: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """Estimate a mean that another seed and other texts would change, with the one 95 % interval over both.

    :param values: [s, m], the outcomes of m predictions under s seeds; what no seed has an outcome of is NaN.
    :param query_index: as for `bootstrap_interval`, as is `span`.
    :returns: NaN throughout if there is no outcome.
    """
    (found,) = estimates([np.asarray(values, np.float64)[:, :, None]], query_index, span=span)[0]
    return found


def estimates(
    values: Sequence[Floats],
    query_index: Ints | None = None,
    *,
    span: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
) -> list[list[Estimate]]:
    """Estimate many means of the same predictions, such as several methods' accuracies, for little more than one.

    :param values: per method [s, m, c], outcomes of m predictions under s seeds in c columns, as for `estimate`.
    :param span: of every column, or [c] where all methods have the same columns.
    :returns: per method, one per column.
    """
    means = [outcomes.mean(axis=0) for outcomes in values]
    spans = [np.stack([np.broadcast_to(np.asarray(end, np.float64), one.shape[1]) for end in span]) for one in means]
    low, high = np.concatenate(spans, axis=1)
    every = bootstrap_interval(np.concatenate(means, axis=1), query_index, span=(low, high))
    of = np.split(every, np.cumsum([one.shape[1] for one in means])[:-1])
    return [
        [_estimate(*column) for column in zip(np.moveaxis(outcomes, 2, 0), found, within.T, strict=True)]
        for outcomes, found, within in zip(values, of, spans, strict=True)
    ]


def _estimate(outcomes: Floats, texts: Floats, span: Floats) -> Estimate:
    """The estimate of outcomes [s, m] whose mean has the interval `texts` over texts."""
    known = ~np.isnan(outcomes).any(axis=0)
    if not known.any():
        return Estimate(math.nan, math.nan, math.nan, None, len(outcomes))
    return combine(outcomes[:, known].mean(axis=1), texts.tolist(), span.tolist())


def combine(means: ArrayLike, texts: Sequence[float], span: Sequence[float] = (0.0, 1.0)) -> Estimate:
    """Put the interval over texts of a mean and the spread of the seeds' means together; one seed has the first alone.

    :param means: [s], one per seed.
    :param texts: 95 % interval of their mean over texts.
    :param span: what the interval does not leave.
    """
    test = paired_test(np.asarray(means, np.float64))
    around = 0.0 if test.interval is None else test.interval[1] - test.mean
    below, above = math.hypot(test.mean - texts[0], around), math.hypot(texts[1] - test.mean, around)
    return Estimate(test.mean, max(span[0], test.mean - below), min(span[1], test.mean + above), test.sd, test.n)


def sign(interval: tuple[float, float] | None) -> int:
    """1 if a difference is above 0 by its 95 % interval, -1 if below, 0 if there is no significant difference."""
    return 0 if interval is None else int(interval[0] > 0) - int(interval[1] < 0)


@dataclass(frozen=True)
class PairedTest:
    """Differences a - b of n pairs, tested against zero.

    `sd`, `interval`, `p` and `cohens_d` are None where n = 1 leaves nothing to estimate them from. Where all
    differences are one and the same number, as few seeds on few texts may have by chance, t is not defined and there is
    no interval; nor are there `p` and `cohens_d`, unless that number is zero: then p is 1 and d 0.
    """

    n: int
    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    p: float | None
    cohens_d: float | None


def paired_test(differences: Sequence[float] | Floats) -> PairedTest:
    """Student's two-sided t-test of paired differences, with 95 % interval and Cohen's d (mean over their SD).

    :param differences: n differences a - b, one per pair.
    :raises PipelineError: if there is no difference.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if not n:
        raise PipelineError("no pair to compare", "score both methods with at least one common seed")
    mean = float(values.mean())
    if n == 1:
        return PairedTest(1, mean, None, None, None, None)
    if np.ptp(values) < TOLERANCE:
        if abs(mean) < TOLERANCE:
            return PairedTest(n, 0.0, 0.0, None, 1.0, 0.0)
        return PairedTest(n, mean, 0.0, None, None, None)
    from scipy.special import stdtr, stdtrit  # a third of a second, which a kept score need not wait for

    sd = float(values.std(ddof=1))
    error = sd / math.sqrt(n)
    half = float(stdtrit(n - 1, _TAILS[1])) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return PairedTest(n, mean, sd, (mean - half, mean + half), p, mean / sd)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of one family (Holm 1979, step-down); None is no test, and does not count.

    :returns: adjusted values in the order given, to be compared with the level as they are.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = highest
    return adjusted
