"""Exact nearest neighbours at every prefix of an embedding, in one pass over the gallery.

The idea: the dot product of two prefixes is the sum of the dot products of their blocks. So one tile of the gallery is
multiplied block by block into one accumulator, and after block j the accumulator, divided by the norms of the two
prefixes, holds the cosines of prefix j. All prefixes together cost the multiplications of the longest one.

Finding the k nearest must then be cheap too, for it happens once a prefix. Each query carries the similarity that a
further row has to beat. A pass over the tile takes the maximum of each short run of columns, as fast as memory allows;
only runs that hold a find are looked at again. After the first tiles nearly none do.

What equal means: cosines are computed in float64 and rounded to multiples of 2^-24 (float32's spacing below 1), so that
two rows of one direction tie, whatever the order in which a machine adds. A neighbour is then one integer, the
similarity in its upper and the row in its lower bits, and ties go to the lower row because integers have no ties.

What it costs: float64 is needed only for rows that are nearly as near as the k-th. So the pass over the gallery is made
in float32, whose error has a bound, and keeps a few rows more than k; of these, the ones within the bound are decided
in float64. A query whose last kept row is still within the bound (many copies of one text) is searched again in
float64 alone. The answers are those of float64, on every machine.

Memory: one tile of similarities, whatever the size of the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise, repeat
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch

from heads.errors import HeadsError

Array: TypeAlias = np.ndarray | torch.Tensor
_Keys = TypeVar("_Keys", np.ndarray, torch.Tensor)

GRID = 1 << 24  # similarities are whole multiples of 1 / GRID
ROW_BITS = 37  # of a key; the similarity takes 26 of the 27 bits above them
_NOTHING = -(1 << 62)  # the key of a place not filled yet, below that of cosine -1 and any row
RUN = 32  # columns looked at together
_QUERIES, _PART = 4608, 1152
_COLUMNS, _FIRST_COLUMNS = {"cpu": 1024, "cuda": 32768}, 64
_SPARE = 4  # rows kept beyond k in float32
_LEAST_PREFIX = 1e-10  # of the whole vector's length: float32 holds the products of prefixes that are no shorter


class Neighbours(NamedTuple):
    """The nearest gallery rows of each query at each prefix, nearest first, of equal similarities the lower row first.

    `indices` is int64 [J, q, k]; `similarities` is float32 [J, q, k], multiples of 2^-24.
    """

    indices: np.ndarray
    similarities: np.ndarray


class _Rows(NamedTuple):
    """Rows as they are multiplied: blocks of [n, width], and the norm of each prefix [J, n], 1 where it is zero."""

    blocks: list[torch.Tensor]
    norms: torch.Tensor


class _Queries(NamedTuple):
    """A block of queries, the number of its first one, and the gallery rows [q] that are the queries themselves."""

    rows: Array
    first: int
    own: torch.Tensor | None


class _TooShortPrefixError(Exception):
    """A prefix is so much shorter than its vector that float32 does not hold its products."""


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
    k = min(_checked_k(k), _candidates(queries, gallery, exclude))
    device = torch.device(device or (queries.device if isinstance(queries, torch.Tensor) else "cpu"))
    keys = []
    for i in range(0, len(queries), _QUERIES):
        part = queries[i : i + _QUERIES]
        own = torch.arange(i, i + len(part), device=device) if exclude else None
        keys.append(_nearest(_Queries(part, i, own), gallery, lengths, k, device))
    found = torch.cat(keys, dim=1).cpu().numpy()
    units = _units(found)
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
    step = max(1, (1 << 22) // (k * k))
    for start in range(0, len(ballots), step):
        part = slice(start, start + step)
        for level in range(labels.shape[1]):
            winners[part, level] = _winners(labels[ballots[part], level], weights[part])
    return winners.reshape(*indices.shape[:-1], labels.shape[1])


def _winners(candidates: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Elect one label per row, of labels [n, k] with weights [n, k]."""
    same = (candidates[:, :, None] == candidates[:, None, :]) & (candidates >= 0)[:, :, None]
    votes, sums = same.sum(axis=2), np.where(same, weights[:, None, :], 0.0).sum(axis=2)
    last = np.where(candidates < 0, np.iinfo(np.int64).max, candidates)
    first = np.lexsort((last, -sums, -votes))[:, :1]
    return np.take_along_axis(candidates, first, axis=1)[:, 0]


def _checked_k(k: int) -> int:
    if k < 1:
        raise HeadsError(f"k is {k}, and a query needs a neighbour", "give k of 1 or more")
    return k


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


def _nearest(queries: _Queries, gallery: Array, lengths: tuple[int, ...], k: int, device: torch.device) -> torch.Tensor:
    """Find the keys [J, q, k] of one block of queries: in float32, decided in float64, the rest in float64."""
    try:
        with _full_float32():
            kept = _search(queries, gallery, lengths, min(k + _SPARE, len(gallery)), device, torch.float32)
    except _TooShortPrefixError:
        return _search(queries, gallery, lengths, k, device, torch.float64)
    units = _units(kept)
    # A similarity of d dimensions is within d + 16 roundings of 2^-24; that of the k-th may err the other way.
    margin = torch.tensor([2 * (d + 16) for d in lengths], device=device)[:, None]
    near = units >= (units[:, :, k - 1] - margin)[:, :, None]
    rows = (units << ROW_BITS) - kept
    keys = torch.full_like(kept, _NOTHING)
    for j, d in enumerate(lengths):
        query, place = near[j].nonzero(as_tuple=True)
        keys[j, query, place] = _exact(queries.rows, gallery, query, rows[j, query, place], d)
    keys = keys.topk(k, dim=2).values
    unsure = near[:, :, -1].any(0).nonzero()[:, 0]
    if len(unsure) and kept.shape[2] < len(gallery) - (queries.own is not None):
        again = queries.rows[unsure.cpu().numpy() if isinstance(queries.rows, np.ndarray) else unsure]
        own = None if queries.own is None else queries.own[unsure]
        keys[:, unsure] = _search(_Queries(again, 0, own), gallery, lengths, k, device, torch.float64)
    return keys


def _exact(queries: Array, gallery: Array, query: torch.Tensor, row: torch.Tensor, dim: int) -> torch.Tensor:
    """Keys int64 [m] of pairs of a query and a gallery row, by the cosine of their first `dim` dimensions."""
    keys = torch.empty_like(row)
    step = max(1, (1 << 22) // dim)
    for i in range(0, len(row), step):
        part = slice(i, i + step)
        a, b = (
            x[:, :dim].index_select(0, y[part].to(x.device)).to(row.device, torch.float64)
            for x, y in ((_tensor(queries), query), (_tensor(gallery), row))
        )
        lengths = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
        cosines = (a * b).sum(1) / lengths.where(lengths > 0, 1.0)
        keys[part] = ((cosines * GRID).round().to(torch.int64) << ROW_BITS) - row[part]
    return keys


def _tensor(rows: Array) -> torch.Tensor:
    return rows.detach() if isinstance(rows, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(rows))


@contextmanager
def _full_float32() -> Iterator[None]:
    """Let products of float32 be products of float32, whatever the caller allows."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _rows(
    part: Array, first: int, name: str, lengths: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> _Rows:
    """Cut rows into blocks on the device, and take the norms of their prefixes; in float32 rows get unit length."""
    tensor = _tensor(part).to(device).to(torch.float64)
    edges = list(pairwise((0, *lengths)))
    norms = torch.stack([tensor[:, a:b].square().sum(1) for a, b in edges]).cumsum(0).sqrt()
    broken = norms[-1].isfinite().logical_not().nonzero()
    if len(broken):
        raise HeadsError(
            f"{name} {first + int(broken[0])} holds a value that is not finite",
            "look for NaN or infinity where the embeddings were made",
        )
    if dtype == torch.float32:
        whole = norms[-1].where(norms[-1] > 0, 1.0)
        tensor, norms = tensor / whole[:, None], norms / whole
        if bool(((norms > 0) & (norms < _LEAST_PREFIX)).any()):
            raise _TooShortPrefixError
    blocks = [tensor[:, a:b].to(dtype).contiguous() for a, b in edges]
    return _Rows(blocks, norms.where(norms > 0, 1.0).to(dtype))


def tiles(total: int, widest: int) -> Iterator[tuple[int, int]]:
    """Bounds of gallery tiles: small at first, when every row is a find, then doubling up to the widest."""
    start, width = 0, _FIRST_COLUMNS
    while start < total:
        yield start, min(start + width, total)
        start, width = start + width, min(2 * width, widest)


def finds(runs: torch.Tensor, floor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and column of each similarity above its query's floor, in order.

    :param runs: [q, c / RUN, RUN], the similarities of a tile.
    :param floor: [q].
    """
    query, run = (runs.amax(2) > floor[:, None]).nonzero(as_tuple=True)
    if 4 * len(query) > runs.shape[0] * runs.shape[1]:  # looking at every column costs less than picking runs
        query, column = (runs.flatten(1) > floor[:, None]).nonzero(as_tuple=True)
        return query, column
    hit, offset = (runs[query, run] > floor[query, None]).nonzero(as_tuple=True)
    return query[hit], run[hit] * RUN + offset


def numbered(query: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How many finds each of `count` queries has, and the number of each find among its query's, from 0."""
    found = query.bincount(minlength=count)
    return found, torch.arange(len(query), device=query.device) - (found.cumsum(0) - found)[query]


@contextmanager
def side_by_side(threads: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a `map` that runs in threads of which each computes alone.

    The steps of a tile are many and small. Shared by all cores, each would wait for the slowest core, which on a busy
    machine is not running at all: measured at ten times the time.
    """
    before = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool.map
    torch.set_num_threads(before)  # a thread's setting is its own, but threads to come would take over the last one


def _search(
    queries: _Queries, gallery: Array, lengths: tuple[int, ...], k: int, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Find the keys [J, q, k] of one block of queries, by products in one dtype."""
    count = len(queries.rows)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    rounds = -(-count // (_PART * threads)) if device.type == "cpu" else 1
    step = -(-count // (rounds * threads))
    parts = [slice(i, min(i + step, count)) for i in range(0, count, step)]
    keys = torch.full((len(lengths), count, k), _NOTHING, dtype=torch.int64, device=device)
    bounds = list(tiles(len(gallery), _COLUMNS["cuda" if device.type == "cuda" else "cpu"]))
    width = max(stop - start for start, stop in bounds)
    room = torch.empty((2, count, -(-width // RUN) * RUN), dtype=dtype, device=device)
    mine = [keys[:, part] for part in parts], [room[:, part] for part in parts]
    firsts = [queries.first + part.start for part in parts]
    own = [None if queries.own is None else queries.own[part] for part in parts]
    same = repeat(lengths), repeat(device), repeat(dtype)
    with side_by_side(threads) as each:
        asked = list(each(_rows, [queries.rows[p] for p in parts], firsts, repeat("query"), *same))
        for start, stop in bounds:
            [tile] = each(_rows, [gallery[start:stop]], [start], ["gallery row"], *same)
            list(each(_scan, *mine, asked, own, repeat(tile), repeat(start)))
    return keys


def _scan(
    keys: torch.Tensor, room: torch.Tensor, queries: _Rows, own: torch.Tensor | None, tile: _Rows, first: int
) -> None:
    """Take into keys [J, q, k], in place, what a tile has that is nearer at each prefix.

    :param room: real [2, q, c or more], space for the products and the similarities.
    :param own: int64 [q], gallery rows that are the queries, if a query is not to find itself.
    :param first: gallery row that the tile begins with.
    """
    count = tile.norms.shape[1]
    products, similarities = room[0, :, :count], room[1, :, :count]
    runs = room[1, :, : -(-count // RUN) * RUN].view(len(products), -1, RUN)
    room[1, :, count:] = -torch.inf
    products.zero_()
    if own is not None:
        [inside] = ((own >= first) & (own < first + count)).nonzero(as_tuple=True)
        products[inside, own[inside] - first] = -torch.inf
    for j, (left, right) in enumerate(zip(queries.blocks, tile.blocks, strict=True)):
        products.addmm_(left, right.T)
        torch.mul(products, GRID / tile.norms[j], out=similarities)
        _merge(keys[j], runs, queries.norms[j], first)


def _merge(keys: torch.Tensor, runs: torch.Tensor, norms: torch.Tensor, first: int) -> None:
    """Take into keys [q, k], in place, what a tile has that is nearer.

    :param runs: real [q, c / RUN, RUN], the similarities of gallery rows `first` and on, in grid units times the
        queries' `norms` [q].
    """
    k = keys.shape[1]
    # Rows come in order, so an equal similarity comes too late; 0.49 instead of 0.5 leaves the rounding to the keys.
    floor = (_units(keys[:, -1]) + 0.49) * norms
    query, column = finds(runs, floor)
    if not len(query):
        return
    units = (runs.flatten(1)[query, column] / norms[query]).round().to(torch.int64)
    count, place = numbered(query, len(keys))
    lucky = count.nonzero()[:, 0]
    rivals = keys.new_full((len(lucky), k + int(count.max())), _NOTHING)
    rivals[:, :k] = keys[lucky]
    rivals[(count > 0).cumsum(0)[query] - 1, k + place] = (units << ROW_BITS) - (first + column)
    keys[lucky] = rivals.topk(k).values


def _units(keys: _Keys) -> _Keys:
    """Read the similarities in keys, in grid units: a key is units * 2^ROW_BITS - row."""
    return (keys + (1 << ROW_BITS) - 1) >> ROW_BITS
