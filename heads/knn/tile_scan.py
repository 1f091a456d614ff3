"""One pass over a gallery that keeps the nearest rows of each query at every prefix, a tile at a time.

The idea: the dot product of two prefixes is the sum of the dot products of their blocks. So one tile of the gallery is
multiplied block by block into one accumulator, and after block j the accumulator, divided by the norms of the two
prefixes, holds the cosines of prefix j. All prefixes together cost the multiplications of the longest one.

Finding the k nearest must then be cheap too, for it happens once a prefix. Each query carries the similarity that a
further row has to beat. A pass over the tile takes the maximum of each group of columns, as fast as memory allows; only
groups that hold a find are looked at again. After the first tiles nearly none do.

A neighbour is one integer, the similarity in multiples of 2^-24 in its upper and the row in its lower bits: ties go to
the lower row because integers have no ties.

A GPU multiplies float16 some ten times as fast as float32. There each prefix has unit length, each number is the sum of
two of float16 (22 bits), and one product of three times the width makes the cosine: high x high + high x low + low x
high. That is more arithmetic and fewer passes over similarities, which is what costs.

Memory: one tile of similarities, whatever the size of the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise, repeat
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch

from heads.errors import HeadsError

Array: TypeAlias = np.ndarray | torch.Tensor
_Keys = TypeVar("_Keys", np.ndarray, torch.Tensor)

GRID = 1 << 24  # similarities are whole multiples of 1 / GRID
ROW_BITS = 37  # of a key; the similarity takes 26 of the 27 bits above them
NOTHING = -(1 << 62)  # the key of a place not filled yet, below that of cosine -1 and any row
RUN = 32  # columns looked at together
_PART = 1152  # queries that one thread compares at a time
_COLUMNS, _FIRST_COLUMNS = {"cpu": 1024, "cuda": 98304}, {"cpu": 64, "cuda": 1024}
_GPU_SHARE = 0.25  # of a GPU's memory, at most, for the similarities of a tile
_LEAST_PREFIX = 1e-10  # of the whole vector's length: float32 holds the products of prefixes that are no shorter
_HALVES_SCALE = 1 << 8  # keeps both float16 parts of a number below 1 clear of the smallest float16


class _Rows(NamedTuple):
    """Rows as they are multiplied: blocks of [n, width], and the norm of each prefix [J, n], 1 where it is zero."""

    blocks: list[torch.Tensor]
    norms: torch.Tensor


class Queries(NamedTuple):
    """A block of queries, the number of its first one, and the gallery rows [q] that are the queries themselves."""

    rows: Array
    first: int
    own: torch.Tensor | None


class TooShortPrefixError(Exception):
    """A prefix is so much shorter than its vector that float32 does not hold its products."""


def scan(
    queries: Queries, gallery: Array, lengths: tuple[int, ...], k: int, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Find the keys [J, q, k] of one block of queries, by products in one dtype."""
    count = len(queries.rows)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    rounds = -(-count // (_PART * threads)) if device.type == "cpu" else 1
    step = -(-count // (rounds * threads))
    parts = [slice(i, min(i + step, count)) for i in range(0, count, step)]
    keys = torch.full((len(lengths), count, k), NOTHING, dtype=torch.int64, device=device)
    kind = "cuda" if device.type == "cuda" else "cpu"
    widest = _COLUMNS[kind]
    if kind == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        widest = min(widest, max(RUN, int(_GPU_SHARE * memory) // (8 * len(lengths) * count)))
    bounds = list(tiles(len(gallery), widest, _FIRST_COLUMNS[kind]))
    width = max(stop - start for start, stop in bounds)
    half = dtype == torch.float16
    shape = (len(lengths) if half else 2, count, -(-width // RUN) * RUN)
    room = torch.empty(shape, dtype=torch.float32 if half else dtype, device=device)
    mine = [keys[:, part] for part in parts], [room[:, part] for part in parts]
    firsts = [queries.first + part.start for part in parts]
    own = [None if queries.own is None else queries.own[part] for part in parts]
    same = repeat(lengths), repeat(device), repeat(dtype)
    with side_by_side(threads) as each:
        asked = list(each(rows_of, [queries.rows[p] for p in parts], firsts, repeat("query"), *same))
        for start, stop in bounds:
            [tile] = each(rows_of, [gallery[start:stop]], [start], ["gallery row"], *same)
            list(each(_take, *mine, asked, own, repeat(tile), repeat(start)))
    return keys


def tiles(total: int, widest: int, first: int = 64) -> Iterator[tuple[int, int]]:
    """Bounds of gallery tiles: small at first, when every row is a find, then doubling up to the widest."""
    start, width = 0, first
    while start < total:
        yield start, min(start + width, total)
        start, width = start + width, min(2 * width, widest)


def finds(similarities: torch.Tensor, floor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and column of each similarity above its query's floor, by query.

    Columns c / RUN apart are looked at together: their maximum is one of whole rows, which is what processors like.

    :param similarities: [q, c], c a multiple of RUN.
    :param floor: [q].
    """
    runs = similarities.view(len(similarities), RUN, -1)
    query, run = (runs.amax(1) > floor[:, None]).nonzero(as_tuple=True)
    if 4 * len(query) > runs.shape[0] * runs.shape[2]:  # looking at every column costs less than picking runs
        query, column = (similarities > floor[:, None]).nonzero(as_tuple=True)
        return query, column
    hit, offset = (runs[query, :, run] > floor[query, None]).nonzero(as_tuple=True)
    return query[hit], offset * runs.shape[2] + run[hit]


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
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:  # a thread's setting is its own, but threads to come would take over the last one
        torch.set_num_threads(before)


def units_of(keys: _Keys) -> _Keys:
    """Read the similarities in keys, in grid units: a key is units * 2^ROW_BITS - row."""
    return (keys + (1 << ROW_BITS) - 1) >> ROW_BITS


def _tensor(rows: Array) -> torch.Tensor:
    """Rows as a tensor that shares their memory where it can."""
    if isinstance(rows, torch.Tensor):
        return rows.detach()
    if any(stride < 0 for stride in rows.strides):  # numpy calls a single such row contiguous, torch refuses it
        rows = rows.copy()
    return torch.from_numpy(np.ascontiguousarray(rows))


def rows_of(
    part: Array, first: int, name: str, lengths: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> _Rows:
    """Cut rows into blocks on the device, and take the norms of their prefixes.

    In float32 rows have unit length. In float16 block j is the whole prefix j at unit length, in two parts.
    """
    tensor = _tensor(part).to(device).to(torch.float64)
    edges = list(pairwise((0, *lengths)))
    norms = torch.stack([tensor[:, a:b].square().sum(1) for a, b in edges]).cumsum(0).sqrt()
    broken = norms[-1].isfinite().logical_not().nonzero()
    if len(broken):
        raise HeadsError(
            f"{name} {first + int(broken[0])} holds a value that is not finite",
            "look for NaN or infinity where the embeddings were made",
        )
    whole = norms[-1].where(norms[-1] > 0, 1.0)
    if dtype != torch.float64 and bool(((norms > 0) & (norms < _LEAST_PREFIX * whole)).any()):
        raise TooShortPrefixError
    norms = norms.where(norms > 0, 1.0)
    if dtype == torch.float16:
        scales = _HALVES_SCALE / norms[:, :, None]
        return _Rows(
            [_halves(tensor[:, :d] * by, name == "query") for d, by in zip(lengths, scales, strict=True)], norms
        )
    if dtype == torch.float32:
        tensor, norms = tensor / whole[:, None], norms / whole
    return _Rows([tensor[:, a:b].to(dtype).contiguous() for a, b in edges], norms.to(dtype))


def _halves(rows: torch.Tensor, asked: bool) -> torch.Tensor:
    """High and low parts in float16 of numbers [n, d], so that a product of queries and rows has three of the four."""
    high = rows.half()
    low = (rows - high).half()
    return torch.cat([high, high, low] if asked else [high, low, high], 1)


def _take(
    keys: torch.Tensor, room: torch.Tensor, queries: _Rows, own: torch.Tensor | None, tile: _Rows, first: int
) -> None:
    """Take into keys [J, q, k], in place, what a tile has that is nearer at each prefix.

    :param room: space [2, q, c or more] for products and similarities; where parts are multiplied, [J, q, c or more]
        for the similarities of all prefixes, which are looked through together: a GPU waits for each look.
    :param own: int64 [q], gallery rows that are the queries, if a query is not to find itself.
    :param first: gallery row that the tile begins with.
    """
    count, nobody = tile.norms.shape[1], queries.norms.new_zeros(0, dtype=torch.int64)
    inside, column = nobody, nobody
    if own is not None:
        [inside] = ((own >= first) & (own < first + count)).nonzero(as_tuple=True)
        column = own[inside] - first
    width = -(-count // RUN) * RUN
    if tile.blocks[0].dtype == torch.float16:
        found = room.view(-1)[: keys.shape[0] * keys.shape[1] * width].view(*keys.shape[:2], width)
        for similarities, left, right in zip(found, queries.blocks, tile.blocks, strict=True):
            torch.mm(left, right.T, out_dtype=torch.float32, out=similarities[:, :count])
        found[:, :, count:] = -torch.inf
        found[:, inside, column] = -torch.inf
        scale = found.new_full((keys.shape[0] * keys.shape[1],), _HALVES_SCALE**2 / GRID)
        _merge(keys.view(-1, keys.shape[2]), found.view(-1, width), scale, first)
        return
    products, similarities, filled = room[0, :, :count], room[1, :, :count], room[1, :, :width]
    filled[:, count:] = -torch.inf
    products.zero_()
    products[inside, column] = -torch.inf
    for j, (left, right) in enumerate(zip(queries.blocks, tile.blocks, strict=True)):
        products.addmm_(left, right.T)
        torch.mul(products, GRID / tile.norms[j], out=similarities)
        _merge(keys[j], filled, queries.norms[j], first)


def _merge(keys: torch.Tensor, similarities: torch.Tensor, scale: torch.Tensor, first: int) -> None:
    """Take into keys [q, k], in place, what a tile has that is nearer.

    :param similarities: real [q, c], c a multiple of RUN, those of gallery rows `first` and on, in grid units times
        each query's `scale` [q].
    """
    k = keys.shape[1]
    # Rows come in order, so an equal similarity comes too late; 0.49 instead of 0.5 leaves the rounding to the keys.
    floor = (units_of(keys[:, -1]) + 0.49) * scale
    query, column = finds(similarities, floor)
    if not len(query):
        return
    units = (similarities[query, column] / scale[query]).round().to(torch.int64)
    count, place = numbered(query, len(keys))
    lucky = count.nonzero()[:, 0]
    rivals = keys.new_full((len(lucky), k + int(count.max())), NOTHING)
    rivals[:, :k] = keys[lucky]
    rivals[(count > 0).cumsum(0)[query] - 1, k + place] = (units << ROW_BITS) - (first + column)
    keys[lucky] = rivals.topk(k).values
