"""Exact search by cosine, on a CPU and on a GPU.

The product of queries and documents is cheap; finding the k largest of a million similarities per query is not. Three
ways, all exact:

On a CPU, for a batch, similarities are made a tile at a time, small enough to stay in cache. Each query carries the
similarity that a further document has to beat; a tile is first reduced to the maxima of short runs of columns, and only
runs that hold a find are looked at. Finds collect in a buffer and are merged when it is full, some ten times in a
million documents. The queries are dealt out to the cores.

On a GPU, which should wait for nothing that depends on data, and for few queries, all similarities are written and
reduced to the maxima of runs of columns; the k largest lie in the k runs of the largest maxima, and only these are
looked through. `topk` leaves open which of equal numbers it takes, so it is asked for one more than k: where none of
them are equal, its order is the answer; only where the last two are does a second, slower look decide.

One query alone on a GPU has kernels of its own that do the same in a few launches (`triton_knn`).

Ties go to the lower document: similarity (float32, its bits ordered as an integer) and row make one 64-bit key, and
keys have no ties. What ties is decided by the machine's float32 product, in which copies of one document may differ in
the last bit; `heads.knn`, which scores, pays for float64 instead. The other way, FAISS, is measured beside it in
`benchmarks/retrieval/retrieve.py`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from heads.knn import RUN, finds, numbered, side_by_side, tiles
from pipeline.errors import PipelineError
from pipeline.retrieval.quantization import Array, Stored, unit_prefixes

_NOTHING = -(1 << 63)
_ROW_MASK = (1 << 32) - 1
_COLUMNS = 2048  # of the widest tile: what stays in cache
_PART = 128  # queries of a tile
_FINDS = 256  # finds collected before a merge, at least
_MANY = 1000  # neighbours from which on a sample of the documents, searched first, is worth it
_SPARED, _SAMPLE = 16, 1 << 16  # the sample: one document in so many, at most so many
_FEW = 16  # queries that are searched densely on a CPU too
_DENSE = {"cpu": 1 << 24, "cuda": 1 << 29}  # similarities held at once in a dense search
_CONVERTED = 1 << 20  # numbers of a smaller format in float32 at once, on a CPU: what stays in cache
_LEAST_RUN = 16  # shorter runs save nothing in a dense search


class Found(NamedTuple):
    """Documents of each query, nearest first, of equal similarities the lower row first.

    `rows` is int64 [q, k]; `similarities` float32 [q, k].
    """

    rows: Tensor
    similarities: Tensor


def search(queries: Array, documents: Stored, k: int) -> Found:
    """Find the k documents nearest to each query by cosine of the stored prefix.

    :param queries: real [q, D], D at least the prefix; cut and normalised here.
    :param k: documents per query; all of them where there are fewer.
    :raises PipelineError: if k is less than 1, a query is shorter than the prefix, there is no document, or more than
        2^32.
    """
    k = _checked(queries, documents, k)
    if documents.device.type == "cuda" and len(queries) == 1 and (one := _search_one(queries, documents, k)):
        return one
    units = unit_prefixes(queries, documents.dim, documents.device)
    if documents.device.type == "cuda" or len(units) <= _FEW:
        step = max(1, _DENSE[documents.device.type] // len(documents))
        parts = [_search_dense(units[i : i + step], documents, k) for i in range(0, max(1, len(units)), step)]
        return parts[0] if len(parts) == 1 else Found(*map(torch.cat, zip(*parts, strict=True)))
    return found(_search_tiles(units, documents, k))


def _search_one(queries: Array, documents: Stored, k: int) -> Found | None:
    """Search for one query with the fused kernels; None where they do not serve, or the query is not finite."""
    kernels = _fused_kernels(documents.device)
    if kernels is None or not kernels.can_search(documents, k):
        return None
    query = torch.as_tensor(queries).to(documents.device, torch.float32).contiguous()
    rows, similarities, length = kernels.search_one(query, documents, k)
    return Found(rows, similarities) if math.isfinite(length.item()) else None  # the one wait of a search


@cache
def _fused_kernels(device: torch.device) -> Any:
    """The module of Triton kernels; None where Triton is missing or compiles nothing, which is tried once."""
    try:
        from pipeline.retrieval import triton_knn

        one = torch.ones((1, 1), device=device)
        triton_knn.search_one(one, Stored(one, None), 1)
    except torch.OutOfMemoryError:  # which may pass
        raise
    except Exception:  # no Triton, no C compiler, an old driver: all mean no kernels
        return None
    return triton_knn


def keys_of(similarities: Tensor, rows: Tensor) -> Tensor:
    """Keys int64 that sort by similarity, then by the lower row: the similarity's bits above the row's complement."""
    keys = _ordered((similarities + 0.0).view(torch.int32)).to(torch.int64)  # + 0: minus zero equals zero
    return keys.bitwise_left_shift_(32).bitwise_or_(_ROW_MASK - rows)


def _ordered(bits: Tensor) -> Tensor:
    """Bits of float32 numbers as int32 that sort as they do, and back: of negative ones all but the sign are turned."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def found(keys: Tensor) -> Found:
    """Rows and similarities of keys, int64 [q, k]."""
    rows = _ROW_MASK - (keys & _ROW_MASK)
    return Found(rows, _similarities(keys))


def _similarities(keys: Tensor) -> Tensor:
    """Read the similarities in keys; minus infinity where no document is yet."""
    values = _ordered((keys >> 32).to(torch.int32)).view(torch.float32)
    return values.where(keys != _NOTHING, -torch.inf)


def largest(keys: Tensor, k: int) -> Tensor:
    """The k largest keys of each query, int64 [q, k], the largest first."""
    return keys.topk(k, dim=1).values


def _checked(queries: Array, documents: Stored, k: int) -> int:
    if k < 1:
        raise PipelineError(f"k is {k}, and a query asks for a document", "give 1 or more")
    if queries.ndim != 2 or queries.shape[1] < documents.dim:
        raise PipelineError(
            f"queries of shape {tuple(queries.shape)} are shorter than the stored {documents.dim} dimensions",
            "give queries [q, D] of the embedding that the documents come from",
        )
    if not 0 < len(documents) <= _ROW_MASK:
        raise PipelineError(f"{len(documents):,} documents cannot be searched", "give between 1 and 2^32 documents")
    return min(k, len(documents))


def _product(units: Tensor, documents: Stored, part: slice, out: Tensor | None = None) -> Tensor:
    """Similarities of unit vectors [q, d] with some documents, float32 [q, n]."""
    codes = documents.codes[part]
    if codes.is_cuda and codes.dtype != torch.float32:
        products = torch.mm(units.half(), codes.half().T, out_dtype=torch.float32)
    else:
        products = units.new_empty(len(units), len(codes)) if out is None else out
        step = len(codes) if codes.dtype == torch.float32 else max(1, _CONVERTED // codes.shape[1])
        for i in range(0, len(codes), step):
            rows, into = codes[i : i + step].float(), products[:, i : i + step]
            if len(units) == 1:  # reads memory faster than a product of matrices does
                torch.mv(rows, units[0], out=into[0])
            else:
                torch.mm(units, rows.T, out=into)
    return products if documents.scales is None else products.mul_(documents.scales[part])


def _search_dense(units: Tensor, documents: Stored, k: int) -> Found:
    """Search with all similarities of these queries at once.

    They are reduced to maxima of runs first, those of one query on a GPU alone: a document among the k nearest has
    fewer than k before it, so fewer than k runs come before its own. Runs of sqrt(n / k) documents leave least to look
    through.
    """
    similarities = _product(units, documents, slice(None))
    run = 1 << max(0, round(math.log2(len(documents) / k) / 2))
    if run < _LEAST_RUN or (len(units) == 1 and not units.is_cuda):
        values, rows = similarities.topk(min(k + 1, similarities.shape[1]), dim=1)
        open_ = _tied_last(values, k)
    else:
        similarities, grouped = _grouped(similarities, run)
        maxima, runs = grouped.amax(2).topk(min(k + 1, grouped.shape[1]), dim=1)
        inside = grouped.gather(1, runs[:, :k, None].expand(-1, -1, run)).flatten(1)
        values, places = inside.topk(min(k + 1, inside.shape[1]), dim=1)
        rows = runs.gather(1, places // run) * run + places % run
        open_ = _tied_last(values, k) | _tied_last(maxima, k)
    if not bool((open_ | (values[:, 1:] == values[:, :-1]).any(1)).any()):  # nothing ties: the one wait of a search
        return Found(rows[:, :k], values[:, :k])
    keys = keys_of(values[:, :k], rows[:, :k]).sort(dim=1, descending=True).values
    if bool(open_.any()):  # equal similarities at the last place: which of them counts is left to the keys
        every = torch.arange(similarities.shape[1], device=similarities.device)
        keys[open_] = largest(keys_of(similarities[open_], every), k)
    return found(keys)


def _tied_last(values: Tensor, k: int) -> Tensor:
    """For which queries a tie at the last place of the k + 1 largest leaves open which are the k largest."""
    return values[:, k - 1] == values[:, k] if values.shape[1] > k else values.new_zeros(len(values)).bool()


def _grouped(similarities: Tensor, run: int) -> tuple[Tensor, Tensor]:
    """Similarities [q, n] filled up to whole runs, and the same by run, [q, n / run, run]."""
    count = similarities.shape[1]
    runs = -(-count // run)
    if runs * run != count:
        similarities = torch.nn.functional.pad(similarities, (0, runs * run - count), value=-torch.inf)
    return similarities, similarities.view(len(similarities), runs, run)


def _search_tiles(units: Tensor, documents: Stored, k: int) -> Tensor:
    """Keys [q, k], a tile at a time, the queries shared among the cores."""
    threads = torch.get_num_threads()
    parts = torch.split(units, min(_PART, -(-len(units) // threads)))
    sample = None
    if k >= _MANY and len(documents) >= 2 * _SPARED * k:
        sample = documents.drawn(min(len(documents) // _SPARED, _SAMPLE))
    if threads == 1:
        return torch.cat([_collected(part, documents, k, sample) for part in parts])
    with side_by_side(threads) as each:
        return torch.cat(list(each(lambda part: _collected(part, documents, k, sample), parts)))


def _collected(units: Tensor, documents: Stored, k: int, sample: Stored | None) -> Tensor:
    """Keys [q, k] for some queries; with a sample of the documents, after a guess of the similarity to beat.

    Without one a query has k (1 + ln(n / k)) finds. A sample tells nearly where the k-th stands, so that little more
    than k are found; of a query that found fewer the guess was too high, and it is searched without.
    """
    if sample is not None:
        expected = k * len(sample) / len(documents)
        rank = math.ceil(expected + 4 * math.sqrt(expected))
        guess = _product(units, sample, slice(None)).topk(rank, dim=1, sorted=False).values.amin(dim=1)
        keys = _Collector(units, k, guess).collect(documents)
        misled = (keys[:, -1] == _NOTHING).nonzero()[:, 0]
        if len(misled):
            keys[misled] = _Collector(units[misled], k).collect(documents)
        return keys
    return _Collector(units, k).collect(documents)


class _Collector:
    """Takes in tile after tile what is nearer than the k nearest so far, for some queries.

    `_keys` [q, room] hold what was found, `_filled` [q] how many places are taken: the k best of the last merge and
    the finds since. `_floor` [q] is the similarity to beat. Documents come in order, so an equal one comes too late.
    """

    def __init__(self, units: Tensor, k: int, floor: Tensor | None = None) -> None:
        self._units, self._k = units, k
        count = len(units)
        self._most = k + max(k, _FINDS)
        self._keys = torch.full((count, self._most + _COLUMNS), _NOTHING, dtype=torch.int64)
        self._filled = torch.zeros(count, dtype=torch.int64)
        self._floor = torch.full((count,), -torch.inf) if floor is None else floor
        self._room = torch.empty(count * _COLUMNS)

    def collect(self, documents: Stored) -> Tensor:
        """Keys [q, k] of the nearest documents."""
        for start, stop in tiles(len(documents), _COLUMNS):
            self._take(documents, slice(start, stop))
        self._merge()
        return self._keys[:, : self._k].sort(dim=1, descending=True).values

    def _take(self, documents: Stored, part: slice) -> None:
        """Look through a tile, whose last columns may be without a document."""
        count = part.stop - part.start
        width = -(-count // RUN) * RUN
        tile = self._room[: len(self._units) * width].view(len(self._units), width)
        if count == width:
            _product(self._units, documents, part, tile)
        else:
            tile[:, :count] = _product(self._units, documents, part)
            tile[:, count:] = -torch.inf
        query, column = finds(tile, self._floor)
        if len(query):
            self._keep(query, tile[query, column], column.add_(part.start))

    def _keep(self, query: Tensor, similarities: Tensor, rows: Tensor) -> None:
        count, place = numbered(query, len(self._filled))
        self._keys[query, self._filled[query] + place] = keys_of(similarities, rows)
        self._filled += count
        if int(self._filled.max()) > self._most:
            self._merge()

    def _merge(self) -> None:
        used = max(self._k, int(self._filled.max()))
        few = bool((self._filled < self._k).any())  # places without a find come last then, where the next is put
        best = self._keys[:, :used].topk(self._k, dim=1, sorted=few).values
        self._keys[:, :used] = _NOTHING
        self._keys[:, : self._k] = best
        self._filled = (best != _NOTHING).sum(dim=1)
        self._floor = torch.maximum(self._floor, _similarities(best.amin(dim=1)))
