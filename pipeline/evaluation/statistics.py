"""How sure a figure is: intervals, tests and effect sizes, from numpy alone.

Two things vary when an accuracy is measured again: the texts that are queried and the seed that trained the head. Texts
are resampled (bootstrap); seeds are few, so their differences are tested with Student's t, which knows that. Neither
stands for the other, so what compares methods shows both.

A text that is queried several times, in overlapping samples, is still one text: it is resampled with all its answers,
and these among themselves (a bootstrap of two stages). With the first stage alone 95 % intervals of leave-one-out
covered 86-93 % in simulation, because such texts are one another's neighbours too; with both it is 93-98 %.

Resampling knows only the outcomes it was shown: where all answers are right it says [1, 1]. An outcome that none of n
texts had may still have a probability of up to 1 - (a/2)^(1/n), the end of the exact binomial interval of none in n
(Clopper and Pearson, 1934). No interval is shorter than what such an outcome could move the mean by.

The bootstrap's trick: texts of the same outcome are interchangeable, so a resample is one multinomial draw over the few
distinct outcomes instead of a draw of every text. Exact, and a thousand resamples cost a millisecond.

Student's t is here because its one ingredient, the regularised incomplete beta function, is twenty lines; scipy would
be a dependency of 100 MB for two numbers. The tests hold both against scipy and statsmodels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import PipelineError

Floats = NDArray[np.float64]

RESAMPLES = 4000
"""Bootstrap resamples: the ends of a 95 % interval are then themselves good to 1 % of its width."""
TOLERANCE = 1e-9
"""Differences nearer to one another are the same: shares of texts differ by far more, and rounding by far less."""
INNER_RESAMPLES = 16
"""How often the answers of each text are resampled beforehand; resampled texts draw from these."""


def bootstrap_interval(
    values: ArrayLike,
    query_index: NDArray[np.int64] | None = None,
    *,
    span: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
    confidence: float = 0.95,
    draws: int = RESAMPLES,
    seed: int = 0,
) -> Floats:
    """Percentile intervals of means, by resampling texts; at least as long as `unobserved_bounds`.

    :param values: [m] or [m, ...], outcomes of m predictions: correct or not, or a difference between two such.
    :param about: int64 [m], which text each prediction is of; by default each has its own.
    :param span: least and greatest outcome there can be, numbers or arrays [...]; of differences (-1, 1).
    :param confidence: the share of resampled means between the ends.
    :param draws: number of resamples.
    :param seed: of the draws; the same arguments give the same result.
    :returns: [..., 2], lower and upper end.
    :raises PipelineError: if there is no answer.
    """
    outcomes = np.asarray(values, dtype=np.float64)
    if not len(outcomes):
        raise PipelineError("no answer to resample", "score at least one query")
    sums, times = _texts(outcomes.reshape(len(outcomes), -1), query_index, seed)
    ends = [_interval(column, times, confidence, draws, seed) for column in sums]
    low, high = np.moveaxis(np.array(ends).reshape(*outcomes.shape[1:], 2), -1, 0)
    least, most = unobserved_bounds(outcomes.mean(axis=0), times.shape[1], span, confidence)
    return np.stack([np.minimum(low, least), np.maximum(high, most)], axis=-1)


def unobserved_bounds(
    means: ArrayLike, texts: int, span: tuple[ArrayLike, ArrayLike] = (0.0, 1.0), confidence: float = 0.95
) -> tuple[Floats, Floats]:
    """How low and how high means over n texts may be for an outcome at an end of `span` that none of the texts had.

    :returns: [...] each, as `means`. With means and span of 0 and 1, the ends of Clopper and Pearson's interval.
    """
    share = 1 - ((1 - confidence) / 2) ** (1 / texts)
    values, (low, high) = np.asarray(means, np.float64), (np.asarray(end, np.float64) for end in span)
    return values - share * (values - low), values + share * (high - values)


def _texts(outcomes: Floats, query_index: NDArray[np.int64] | None, seed: int) -> tuple[Floats, Floats]:
    """Put each text's answers together, resampled among themselves in some variants v.

    :returns: [columns, v, t] sums and [v, t] numbers of answers, of t texts.
    """
    if query_index is None or np.bincount(query_index).max() == 1:
        return outcomes.T[:, None], np.ones((1, len(outcomes)))
    outcomes = outcomes[np.argsort(query_index, kind="stable")]
    times = np.bincount(query_index)
    times = times[times > 0]
    starts = np.cumsum(times) - times
    first, choices = np.repeat(starts, times), np.repeat(times, times)
    rng = np.random.default_rng(seed)
    picks = first + (rng.random((INNER_RESAMPLES, len(outcomes))) * choices).astype(np.int64)
    sums = np.array([np.add.reduceat(outcomes[pick], starts) for pick in picks])
    return np.moveaxis(sums, 2, 0), np.tile(times, (INNER_RESAMPLES, 1)).astype(np.float64)


def _interval(sums: Floats, times: Floats, confidence: float, draws: int, seed: int) -> Floats:
    """Resample t texts from variants [v, t] of the sums of their answers and how many these are."""
    distinct, counts = np.unique(times + 1j * np.round(sums, 9), return_counts=True)
    totals = np.random.default_rng(seed).multinomial(sums.shape[1], counts / sums.size, size=draws) @ distinct
    tail = (1 - confidence) / 2
    ends: Floats = np.quantile(totals.imag / totals.real, [tail, 1 - tail])
    return ends


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


def paired_test(differences: Sequence[float] | Floats, confidence: float = 0.95) -> PairedTest:
    """Student's two-sided t-test of paired differences, with interval and Cohen's d (mean over SD of the differences).

    :param differences: n differences a - b, one per pair.
    :param confidence: of the interval for the mean difference.
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
    sd = float(values.std(ddof=1))
    error = sd / math.sqrt(n)
    half = student_quantile((1 + confidence) / 2, n - 1) * error
    return PairedTest(n, mean, sd, (mean - half, mean + half), student_p(mean / error, n - 1), mean / sd)


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


def student_p(t: float, df: float) -> float:
    """Two-sided p-value of t with df degrees of freedom: I_x(df/2, 1/2) at x = df / (df + t^2).

    Near t = 0 x is so near 1 that its distance from 1 is lost; there 1 - I_y(1/2, df/2) at y = 1 - x is taken, and only
    there: p is large then, so the difference from 1 costs no digits.
    """
    square = t * t
    if square < 1:
        return 1 - incomplete_beta(0.5, df / 2, square / (df + square))
    return incomplete_beta(df / 2, 0.5, df / (df + square))


def student_quantile(probability: float, df: float) -> float:
    """The t below which a share of the distribution lies, by bisection to the last bit.

    :raises PipelineError: if the probability is not between 0 and 1, or df not positive.
    """
    if not 0 < probability < 1 or df <= 0:
        raise PipelineError(
            f"Student's t has no quantile {probability} at {df} degrees of freedom",
            "give a probability between 0 and 1, and two values or more",
        )
    tail = 2 * min(probability, 1 - probability)
    low, high = 0.0, 1.0
    while student_p(high, df) > tail:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, df) > tail else (low, middle)
    return math.copysign(high, probability - 0.5) if probability != 0.5 else 0.0


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b) for 0 <= x <= 1, to about 14 digits (DLMF 8.17.22).

    The continued fraction converges fast for x < (a + 1) / (a + b + 2); beyond, 1 - I_{1-x}(b, a) is the same number.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / a / _beta_fraction(a, b, x)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The denominator 1 + d1/(1 + d2/(1 + ...)), evaluated from the top (modified Lentz)."""
    tiny = 1e-300
    value = numerator = 1.0
    denominator = 0.0
    for i in range(1, 10_000):
        m = i // 2
        if i % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / (1 + d * denominator or tiny)
        numerator = 1 + d / numerator or tiny
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-15:
            break
    return value
