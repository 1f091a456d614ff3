"""Two-stage search: a short prefix filters the documents, the full vectors re-rank what it lets through.

Both stages are exact; what the filter misses, the second stage cannot bring back. Re-ranking gathers each query's
candidates and multiplies them at once, for as many queries as fit.

What a search of rounded documents finds is a second stage too, after the list of those nearest before rounding.
Rounding moves a document by a distance, and no cosine with a unit vector by more than that distance (Cauchy and
Schwarz). So outside the list no document comes nearer, rounded, than the last of the list and the largest distance
together; k documents of the list above that are the k nearest. Queries whose k-th is not are searched in full.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.retrieval.knn import Found, found, keys_of, largest, search
from pipeline.retrieval.quantization import Array, Stored, unit_prefixes

_GATHERED = {"cpu": 1 << 18, "cuda": 1 << 28}  # numbers gathered at once when re-ranking: on a CPU, what stays in cache
_ARITHMETIC = 1e-5  # more than float32 products of up to some thousand dimensions are off by


def two_stage(queries: Array, filtering: Stored, full: Stored, candidates: int, k: int) -> Found:
    """Filter by the prefix `filtering`, re-rank what it lets through by the vectors `full`.

    :param queries: real [q, D].
    :param candidates: documents that the filter lets through for each query.
    :param k: documents per query, at most `candidates`.
    :raises PipelineError: as `search`, or if k exceeds the candidates, or the two hold other numbers of documents.
    """
    if len(filtering) != len(full):
        raise PipelineError(
            f"{len(filtering):,} documents to filter and {len(full):,} to re-rank", "store prefixes of the same vectors"
        )
    if k > candidates:
        raise PipelineError(f"{candidates} candidates hold no {k} documents", f"let {k} candidates or more through")
    kept = search(queries, filtering, candidates).rows
    return found(largest(keys_of(rerank(queries, full, kept), kept), k))


def rerank(queries: Array, documents: Stored, candidates: Tensor) -> Tensor:
    """Similarities of each query with its candidates, float32 [q, c].

    :param queries: real [q, D].
    :param candidates: int64 [q, c], rows of documents.
    """
    units = unit_prefixes(queries, documents.dim, documents.device)
    similarities = torch.empty(candidates.shape, device=documents.device)
    step = max(1, _GATHERED[documents.device.type] // (candidates.shape[1] * documents.dim))
    for i in range(0, len(units), step):
        rows = candidates[i : i + step]
        gathered = documents.codes.index_select(0, rows.reshape(-1)).view(*rows.shape, -1).float()
        part = torch.bmm(gathered, units[i : i + step, :, None])[:, :, 0]
        similarities[i : i + step] = part if documents.scales is None else part * documents.scales[rows]
    return similarities


def search_rounded(queries: Tensor, near: Found, vectors: Array, rounded: Stored, k: int) -> Tensor:
    """Rows int64 [q, k] of the rounded documents nearest to each query, as `search` finds them.

    Documents whose similarities differ in float32's last bits may stand otherwise: the products are other ones.

    :param queries: float32 [q, D].
    :param near: the nearest of the same documents in float32, k or more per query; not needed on a GPU.
    :param vectors: real [n, D], those that were rounded.
    :param rounded: their prefixes in a smaller format.
    """
    if rounded.device.type == "cuda":  # where the search rounds the queries too, and is quick
        return search(queries, rounded, k).rows
    rows, similarities = found(
        largest(keys_of(rerank(queries, rounded, near.rows), near.rows), min(k, near.rows.shape[1]))
    )
    if near.rows.shape[1] < len(rounded):
        outside = near.similarities[:, -1] + rounded.largest_rounding(vectors) + _ARITHMETIC
        unsure = (similarities[:, -1] <= outside).nonzero()[:, 0]
        if len(unsure):
            rows[unsure] = search(queries[unsure], rounded, k).rows
    return rows
