"""One query against every document on a GPU, in Triton kernels: nothing between them waits for Python.

What limits a query alone is not its product, which reads the documents once, but the twenty small operations after it,
each of which Python starts. Here the first kernel multiplies, and writes the similarities with the largest key of each
run of documents. A key is the similarity's bits above the row's complement, as in `pipeline.retrieval.knn`: keys have
no ties, so fewer than k runs come before the run of a document among the k nearest, and looking through the k runs of
the largest keys is exact. For up to 16 documents one program does all that, one document after the other; for more,
`topk` takes the runs and then the documents.

A CUDA graph of the single operations was measured too: it saves their starts and keeps their passes over memory.
"""
# Triton's language is Python by its letters only: no annotations, no types
# ruff: noqa: ANN001, ANN202
# mypy: ignore-errors

from __future__ import annotations

import importlib
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.retrieval.quantization import Stored

triton = importlib.import_module("triton")
tl = importlib.import_module("triton.language")
constexpr = tl.constexpr

_MOST_DOCUMENTS = 1 << 22
_FEW = 16  # documents that one program takes one after the other
_RUNS = 4096  # that this program takes in
_LEAST_RUN = 256
_SHORTEST_RUN = 8  # shorter runs save nothing
_BLOCK = 1024  # keys read by a program
_ROWS = 64  # read at once by a program of the first kernel
_CHUNK = 64  # dimensions read at once
_NOTHING = tl.constexpr(-(1 << 63))
_ROW_MASK = tl.constexpr((1 << 32) - 1)


@triton.jit
def _keys(similarity, row):
    bits = tl.where(similarity == 0, 0.0, similarity).to(tl.int32, bitcast=True)  # minus zero equals zero
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (row ^ _ROW_MASK)


@triton.jit
def _length(query, DIM: constexpr, WIDTH: constexpr):
    column = tl.arange(0, WIDTH)
    value = tl.load(query + column, mask=column < DIM, other=0.0)
    return tl.sqrt(tl.sum(value * value, 0))


@triton.jit
def _multiply(
    query, codes, scales, similarities, largest, documents, stride, DIM: constexpr, WIDTH: constexpr,
    SCALED: constexpr, RUN: constexpr, ROWS: constexpr, CHUNK: constexpr,
):  # fmt: skip
    norm = _length(query, DIM, WIDTH)
    part = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, CHUNK)
    best = tl.full([ROWS], _NOTHING, tl.int64)
    for start in range(0, RUN if RUN > ROWS else ROWS, ROWS):
        row = part * (RUN if RUN > ROWS else ROWS) + start + tl.arange(0, ROWS)
        inside = row < documents
        total = tl.zeros([ROWS, CHUNK], tl.float32)
        for first in tl.static_range(0, DIM, CHUNK):
            there = first + column < DIM
            asked = tl.load(query + first + column, mask=there, other=0.0) / tl.where(norm > 0, norm, 1.0)
            at = codes + row[:, None] * stride + (first + column)[None, :]
            total += tl.load(at, mask=inside[:, None] & there[None, :], other=0.0).to(tl.float32) * asked[None, :]
        similarity = tl.sum(total, 1)
        if SCALED:
            similarity *= tl.load(scales + row, mask=inside, other=0.0)
        tl.store(similarities + row, similarity, mask=inside)
        best = tl.maximum(best, tl.where(inside, _keys(similarity, row), _NOTHING))
    if RUN < ROWS:
        run = part * (ROWS // RUN) + tl.arange(0, ROWS // RUN)
        tl.store(largest + run, tl.max(tl.reshape(best, [ROWS // RUN, RUN]), 1), mask=run < tl.cdiv(documents, RUN))
    else:
        tl.store(largest + part, tl.max(best, 0))


@triton.jit
def _select(
    query, similarities, largest, rows, values, length, documents, runs, DIM: constexpr, WIDTH: constexpr,
    K: constexpr, PADDED: constexpr, RUNS: constexpr, RUN: constexpr,
):  # fmt: skip
    tl.store(length, _length(query, DIM, WIDTH))
    place = tl.arange(0, PADDED)
    number = tl.arange(0, RUNS)
    keys = tl.load(largest + number, mask=number < runs, other=_NOTHING)
    taken = tl.full([PADDED], -1, tl.int64)
    for i in range(K):
        best = tl.max(keys, 0)
        taken = tl.where((place == i) & (best != _NOTHING), ((best ^ _ROW_MASK) & _ROW_MASK) // RUN, taken)
        keys = tl.where(keys == best, _NOTHING, keys)
    row = taken[:, None] * RUN + tl.arange(0, RUN)[None, :]
    inside = (taken[:, None] >= 0) & (row < documents)
    similarity = tl.load(similarities + row, mask=inside, other=0.0)
    keys = tl.where(inside, _keys(similarity, row), _NOTHING)
    found = tl.full([PADDED], _NOTHING, tl.int64)
    for i in range(K):
        best = tl.max(tl.max(keys, 1), 0)
        found = tl.where(place == i, best, found)
        keys = tl.where(keys == best, _NOTHING, keys)
    _store(found, rows, values, place, place < K)


@triton.jit
def _store(keys, rows, values, place, inside):
    """Write the rows and the similarities in some keys."""
    ordered = (keys >> 32).to(tl.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    tl.store(rows + place, (keys ^ _ROW_MASK) & _ROW_MASK, mask=inside)
    tl.store(values + place, bits.to(tl.float32, bitcast=True), mask=inside)


@triton.jit
def _keys_of_runs(similarities, largest, keys, documents, RUN: constexpr):
    taken = tl.program_id(0)
    inside_run = tl.arange(0, RUN)
    row = ((tl.load(largest + taken) ^ _ROW_MASK) & _ROW_MASK) // RUN * RUN + inside_run
    similarity = tl.load(similarities + row, mask=row < documents, other=0.0)
    tl.store(keys + taken * RUN + inside_run, tl.where(row < documents, _keys(similarity, row), _NOTHING))


@triton.jit
def _read_keys(query, keys, rows, values, length, k, DIM: constexpr, WIDTH: constexpr, BLOCK: constexpr):
    tl.store(length, _length(query, DIM, WIDTH))
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    _store(tl.load(keys + place, mask=place < k, other=_NOTHING), rows, values, place, place < k)


def can_search(documents: Stored, k: int) -> bool:
    """Whether these kernels are made for k of so many documents."""
    return len(documents) <= _MOST_DOCUMENTS and (k <= _FEW or _run(len(documents), k) >= _SHORTEST_RUN)


def _run(count: int, k: int) -> int:
    """Documents of a run: what one program takes in for a few, what leaves least to look through for more."""
    if k <= _FEW:
        return max(_LEAST_RUN, triton.next_power_of_2(triton.cdiv(count, _RUNS)))
    return 1 << max(0, round(math.log2(count / k) / 2))


def search_one(query: Tensor, documents: Stored, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find the k documents nearest to one query, nearest first, of equal similarities the lower row first.

    :param query: contiguous float32 [1, D] where the documents are, D at least their prefix; cut and normalised here.
    :param documents: each row contiguous.
    :param k: at most the number of documents, and such that `can_search`.
    :return: rows int64 [1, k], similarities float32 [1, k], and the length [] of the query's prefix: where it is not
        finite, the others mean nothing.
    """
    count, dim = documents.codes.shape
    width = max(2, triton.next_power_of_2(dim))
    run = _run(count, k)
    runs = triton.cdiv(count, run)
    scaled = documents.scales is not None
    with torch.cuda.device(documents.device) if query.is_cuda else nullcontext():
        similarities, largest = query.new_empty(count), query.new_empty(runs, dtype=torch.int64)
        _multiply[triton.cdiv(count, max(run, _ROWS)),](
            query, documents.codes, documents.scales if scaled else query, similarities, largest, count,
            documents.codes.stride(0), dim, width, scaled, run, _ROWS, min(width, _CHUNK), num_warps=4,
        )  # fmt: skip
        rows, values, length = query.new_empty((1, k), dtype=torch.int64), query.new_empty((1, k)), query.new_empty(())
        if k <= _FEW:
            _select[1,](
                query, similarities, largest, rows, values, length, count, runs, dim, width, k,
                max(2, triton.next_power_of_2(k)), _RUNS, run, num_warps=8,
            )  # fmt: skip
        else:
            keys = largest.new_empty(k * run)
            _keys_of_runs[k,](similarities, largest.topk(k, sorted=False).values, keys, count, run, num_warps=1)
            _read_keys[triton.cdiv(k, _BLOCK),](
                query, keys.topk(k).values, rows, values, length, k, dim, width, _BLOCK, num_warps=4
            )
    return rows, values, length
