"""Exact nearest neighbours at every prefix of an embedding, in one pass over the gallery, and their votes.

What equal means: cosines are computed in float64 and rounded to multiples of 2^-24 (float32's spacing below 1), so that
two rows of one direction tie, whatever the order in which a machine adds; ties go to the lower row.

What it costs: float64 is needed only for rows that are nearly as near as the k-th. So the pass over the gallery
(`heads.knn.tile_scan`) is made at lower precision, whose error has a bound, and keeps a few rows more than k; of these,
the ones within the bound are decided in float64. A query whose last kept row is still within the bound (many copies of
one text) is searched again in float64 alone. The answers are those of float64, on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch

from heads.errors import HeadsError
from heads.knn.resident import resident
from heads.knn.tile_scan import GRID, NOTHING, ROW_BITS, Array, Queries, TooShortPrefixError, scan, units_of

_QUERIES = 4608  # searched for in one pass
_BALLOTS = 1 << 19  # neighbours whose labels are counted at once: their arrays stay in the processor's cache
_PAIRED = {"cpu": 1 << 18, "cuda": 1 << 22}  # float64 multiplied at once: a cache holds the fewer
_SPARE = 4  # rows kept beyond k at lower precision
_ROUNDINGS = {torch.float32: 1, torch.float16: 6}  # of 2^-24 per dimension, at most, in a similarity


class Neighbours(NamedTuple):
    """The nearest gallery rows of each query at each prefix, nearest first, of equal similarities the lower row first.

    `indices` is int64 [J, q, k]; `similarities` is float32 [J, q, k], multiples of 2^-24.
    """

    indices: np.ndarray
    similarities: np.ndarray


def prefix_neighbours(
    queries: Array,
    gallery: Array,
    scale_dim: int | Sequence[int],
    k: int,
    *,
    exclude: Literal["same-row"] | None = None,
    device: str | torch.device | None = None,
) -> Neighbours:
    """Find the k nearest gallery rows of each query by the cosine of each prefix.

    :param queries: real [q, D], numpy or torch.
    :param gallery: real [g, D].
    :param scale_dim: width of a block, prefix j being the first j * scale_dim dimensions; or the lengths of the
        prefixes themselves, increasing, such as (64, 128, 192, 256, 768).
    :param k: neighbours a query. Where fewer rows than k may be neighbours, all of them are returned: the last axis
        is min(k, g), or min(k, g - 1) with `exclude`.
    :param exclude: "same-row" if the queries are the first q rows of the gallery and none is to find itself.
    :param device: where to compute; by default where the queries are, and for numpy arrays the CPU.
    :returns: indices and similarities; a prefix of zeros has similarity 0 with everything.
    :raises HeadsError: if the shapes do not agree, a value is not finite, the prefixes do not fit the embedding, k is
        less than 1, or there is no query or no row that may be a neighbour.
    """
    lengths = prefix_lengths(scale_dim, queries.shape[-1])
    if k < 1:
        raise HeadsError(f"k is {k}, and a query needs a neighbour", "give k of 1 or more")
    k = min(k, _candidates(queries, gallery, exclude))
    device = torch.device(device or (queries.device if isinstance(queries, torch.Tensor) else "cpu"))
    gallery = resident(gallery, device)
    keys = []
    for i in range(0, len(queries), _QUERIES):
        part = queries[i : i + _QUERIES]
        own = torch.arange(i, i + len(part), device=device) if exclude else None
        keys.append(_nearest(Queries(part, i, own), gallery, lengths, k, device))
    found = torch.cat(keys, dim=1).cpu().numpy()
    units = units_of(found)
    return Neighbours((units << ROW_BITS) - found, (units / GRID).astype(np.float32))


def prefix_lengths(scale_dim: int | Sequence[int], dim: int) -> tuple[int, ...]:
    """Spell out the lengths of the prefixes of an embedding.

    :param scale_dim: width of a block, or the lengths themselves.
    :param dim: length D of the full vector.
    :raises HeadsError: if the blocks do not fill D, or the lengths do not increase from 1 or more to D or less.
    """
    if not isinstance(scale_dim, int):
        lengths = tuple(int(length) for length in scale_dim)
    elif scale_dim < 1 or dim < 1 or dim % scale_dim:
        raise HeadsError(
            f"blocks of {scale_dim} dimensions do not fill an embedding of {dim}",
            f"give a divisor of {dim}, or the lengths of the prefixes themselves",
        )
    else:
        lengths = tuple(range(scale_dim, dim + 1, scale_dim))
    if not lengths or any(a >= b for a, b in pairwise((0, *lengths, dim + 1))):
        raise HeadsError(
            f"prefixes of {', '.join(map(str, lengths)) or 'no'} dimensions do not fit an embedding of {dim}",
            f"give increasing lengths from 1 to {dim}",
        )
    return lengths


def vote(indices: np.ndarray, similarities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Label each query by its neighbours: most votes, then the larger summed similarity, then the lower label.

    A label of -1, one that is not known, does not vote; where no neighbour has a label the answer is -1.

    Sums of multiples of 2^-24 are exact in float64, so that equal sums are equal in whatever order they are added.

    :param indices: int64 [J, q, k], gallery rows.
    :param similarities: float32 [J, q, k], of the same neighbours.
    :param labels: int64 [g, L], of the gallery.
    :returns: int64 [J, q, L].
    """
    k = indices.shape[-1]
    ballots, weights = indices.reshape(-1, k), similarities.reshape(-1, k).astype(np.float64)
    winners = np.empty((len(ballots), labels.shape[1]), np.int64)
    step = max(1, _BALLOTS // k)
    for start in range(0, len(ballots), step):
        part = slice(start, start + step)
        for level in range(labels.shape[1]):
            winners[part, level] = _winners(labels[ballots[part].T, level], weights[part].T)
    return winners.reshape(*indices.shape[:-1], labels.shape[1])


def _winners(candidates: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Elect one label per query, of labels [k, n] with weights [k, n].

    Neighbours are few and queries many: so one pair of neighbours at a time, of all queries at once.
    """
    known = candidates >= 0
    votes, sums = known.astype(np.int32), np.where(known, weights, 0.0)
    own = sums.copy()
    for i, j in combinations(range(len(candidates)), 2):
        same = candidates[i] == candidates[j]
        votes[i] += same & known[j]
        votes[j] += same & known[i]
        sums[i] += np.where(same, own[j], 0.0)
        sums[j] += np.where(same, own[i], 0.0)
    label: np.ndarray = candidates[0]
    count, total = votes[0], sums[0]
    for other, its_count, its_total in zip(candidates[1:], votes[1:], sums[1:], strict=True):
        heavier = (its_total > total) | ((its_total == total) & (other < label))
        wins = (its_count > count) | ((its_count == count) & heavier)
        label = np.where(wins, other, label)
        count, total = np.where(wins, its_count, count), np.where(wins, its_total, total)
    return label


def _candidates(queries: Array, gallery: Array, exclude: str | None) -> int:
    """Count the gallery rows that may be neighbours of a query."""
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise HeadsError(
            f"queries {tuple(queries.shape)} and gallery {tuple(gallery.shape)} are not rows of one length",
            "give arrays [q, D] and [g, D]",
        )
    if not len(queries):
        raise HeadsError("there is no query to find neighbours for", "give at least one row")
    if exclude is not None and len(queries) > len(gallery):
        raise HeadsError(
            f"{len(queries)} queries cannot be rows of a gallery of {len(gallery)}",
            "with exclude='same-row', let the queries be the first rows of the gallery",
        )
    left = len(gallery) - (exclude is not None)
    if left < 1:
        raise HeadsError(f"a gallery of {len(gallery)} leaves a query no neighbour", "give a larger gallery")
    return left


def _nearest(queries: Queries, gallery: Array, lengths: tuple[int, ...], k: int, device: torch.device) -> torch.Tensor:
    """Find the keys [J, q, k] of one block of queries: at lower precision, decided in float64, the rest in float64."""
    quick = torch.float16 if device.type == "cuda" else torch.float32
    try:
        with _full_float32():
            kept = scan(queries, gallery, lengths, min(k + _SPARE, len(gallery)), device, quick)
    except TooShortPrefixError:
        return scan(queries, gallery, lengths, k, device, torch.float64)
    units = units_of(kept)
    # A similarity of d dimensions is off by so many roundings at most, that of the k-th may be off the other way.
    margin = torch.tensor([2 * (_ROUNDINGS[quick] * d + 16) for d in lengths], device=device)[:, None]
    near = units >= (units[:, :, k - 1] - margin)[:, :, None]
    rows = (units << ROW_BITS) - kept
    keys = torch.full_like(kept, NOTHING)
    for j, d in enumerate(lengths):
        query, place = near[j].nonzero(as_tuple=True)
        keys[j, query, place] = _exact(queries.rows, gallery, query, rows[j, query, place], d)
    keys = keys.topk(k, dim=2).values
    unsure = near[:, :, -1].any(0).nonzero()[:, 0]
    if len(unsure) and kept.shape[2] < len(gallery) - (queries.own is not None):
        again = _picked(queries.rows, unsure)
        own = None if queries.own is None else queries.own[unsure]
        keys[:, unsure] = scan(Queries(again, 0, own), gallery, lengths, k, device, torch.float64)
    return keys


def _exact(queries: Array, gallery: Array, query: torch.Tensor, row: torch.Tensor, dim: int) -> torch.Tensor:
    """Keys int64 [m] of pairs of a query and a gallery row, by the cosine of their first `dim` dimensions."""
    keys = torch.empty_like(row)
    step = max(1, _PAIRED[row.device.type] // queries.shape[1])
    for i in range(0, len(row), step):
        part = slice(i, i + step)
        a, b = (
            _picked(rows, places[part])[:, :dim].to(torch.float64)
            for rows, places in ((queries, query), (gallery, row))
        )
        lengths = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
        cosines = (a * b).sum(1) / lengths.where(lengths > 0, 1.0)
        keys[part] = ((cosines * GRID).round().to(torch.int64) << ROW_BITS) - row[part]
    return keys


def _picked(rows: Array, places: torch.Tensor) -> torch.Tensor:
    """Some rows [m, D], on the device of their places int64 [m], wherever all rows are and however they lie there."""
    if isinstance(rows, torch.Tensor):
        return rows.detach().index_select(0, places.to(rows.device)).to(places.device)
    return torch.from_numpy(rows[places.cpu().numpy()]).to(places.device)


@contextmanager
def _full_float32() -> Iterator[None]:
    """Let products of float32 be products of float32, whatever the caller allows."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
