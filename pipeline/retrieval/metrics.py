"""What a search is worth, by query: labels first, agreement with one's own full vector second.

- Label precision@10: share of the ten documents that carry the query's own label, by level. It asks what a reader
  asks, and means the same for every embedding. A class with fewer than ten documents cannot reach 1.
- recall@10: share of the ten nearest by the full vector that a cheaper search returns too. It rewards redundancy: an
  embedding whose full vector says no more than its prefix agrees with itself perfectly.
- Level recall of a filter: documents of the query's own label among the candidates, over the most there could be,
  min(candidates, size of the class).

Everything is kept by query, so that intervals and paired differences come from one record. The filter is ranked once,
up to the most candidates asked for; fewer candidates are the beginning of the same list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.retrieval.knn import Found, keys_of, search
from pipeline.retrieval.quantization import Stored, stored
from pipeline.retrieval.two_stage_search import rerank, search_rounded

Floats = NDArray[np.float32]

TOP = 10
"""Documents that a search returns."""
_NEAR = 512
"""Documents listed for each query, from which what smaller formats find is known without a search of them."""
_QUERIES = 256
_SLOTS = 1 << 22
"""Candidates of all queries of a batch at once, at most: what they take is counted in tens of megabytes."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One way to search, by query.

    `dim`: of the filter, or of the only stage; `candidates`: None with one stage; `storage`: of the filter's prefix.
    `recall` [q], `precision` [q, L]; `level_recall` [q, L] of the filter, NaN where the corpus lacks the class.
    """

    dim: int
    candidates: int | None
    storage: str
    recall: Floats
    precision: Floats
    level_recall: Floats | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """All outcomes of one embedding, and `curves`: recall@10 by number of candidates (from 1), for each filter."""

    outcomes: tuple[Outcome, ...]
    curves: dict[int, Floats]

    def outcome(self, dim: int, candidates: int) -> Outcome:
        """The two-stage search with a filter and a number of candidates."""
        return next(one for one in self.outcomes if (one.dim, one.candidates) == (dim, candidates))


@dataclass(frozen=True, eq=False)
class Question:
    """Queries [q, D] with labels [q, L], and the labels [n, L] of the documents, on the documents' device.

    `known` [q, L]: whether a query has a label on a level. One that has none has a number there that no document has,
    and documents without one share a number that no query has.
    """

    queries: Tensor
    labels: Tensor
    document_labels: Tensor
    known: Tensor

    @classmethod
    def of(cls, queries: np.ndarray, labels: np.ndarray, documents: np.ndarray, device: torch.device) -> Question:
        """Bring everything to the device; labels of -1 are missing."""
        beyond = np.maximum(labels.max(axis=0), documents.max(axis=0)) + 1
        asked, own = np.where(labels < 0, beyond + 1, labels), np.where(documents < 0, beyond, documents)
        arrays = (queries, asked.astype(labels.dtype), own.astype(documents.dtype), labels >= 0)
        return cls(*(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays))

    def batches(self, width: int) -> Iterator[slice]:
        """Parts of the queries of which each has `width` candidates or so."""
        step = max(1, min(_QUERIES, _SLOTS // width))
        for start in range(0, len(self.queries), step):
            yield slice(start, min(start + step, len(self.queries)))


def measure(
    question: Question, full: Stored, filters: Sequence[int], singles: Sequence[int], candidates: Sequence[int],
    formats: Sequence[str], step: Callable[[str], None],
) -> Measured:  # fmt: skip
    """Search every way there is: one stage at each prefix, two stages, and prefixes in smaller formats.

    :param filters: prefixes to filter by, shorter than the full vector.
    :param singles: prefixes to search by alone.
    :param candidates: numbers of candidates, ascending, none below `TOP` unless the corpus is smaller.
    :param formats: storage besides float32, for the filters and the full vector alone.
    :param step: told what comes next.
    """
    step("full vector")
    near = {full.dim: search(question.queries, full, _NEAR)}
    truth = near[full.dim].rows[:, :TOP]
    outcomes = [_single(question, truth, truth, full.dim, "float32")]
    curves = {}
    for dim in filters:
        step(f"filter {dim}")
        found, curves[dim], near[dim] = _filtered(question, dim, full, near[full.dim].rows, candidates)
        outcomes += found
    alone = [(dim, "float32") for dim in sorted({*singles, *filters} - {full.dim})]
    alone += [(dim, kind) for kind in formats for dim in dict.fromkeys((*filters, full.dim))]
    for dim, kind in alone:
        step(f"{dim} dims, {kind}")
        if kind != "float32":
            rows = search_rounded(question.queries, near[dim], full.codes, stored(full.codes, dim, kind), TOP)
        elif dim in near:
            rows = near[dim].rows[:, :TOP]
        else:
            rows = search(question.queries, full.prefix(dim), TOP).rows
        outcomes.append(_single(question, truth, rows, dim, kind))
    return Measured(tuple(outcomes), curves)


def _single(question: Question, truth: Tensor, rows: Tensor, dim: int, storage: str) -> Outcome:
    return Outcome(dim, None, storage, _recall(rows, truth), _precision(question, rows, slice(None)))


def _recall(rows: Tensor, truth: Tensor) -> Floats:
    """Share of `truth` [q, k] that is in `rows` [q, m], float32 [q]."""
    return _numpy((truth[:, :, None] == rows[:, None, :]).any(2).float().mean(1))


def _precision(question: Question, rows: Tensor, part: slice) -> Floats:
    """Share of rows [q, k] with the query's own label, float32 [q, L]; NaN where it has none."""
    shares = (question.document_labels[rows] == question.labels[part, None]).float().mean(1)
    return _numpy(shares.masked_fill(~question.known[part], torch.nan))


def _filtered(
    question: Question, dim: int, full: Stored, listed: Tensor, candidates: Sequence[int]
) -> tuple[list[Outcome], Floats, Found]:
    """Every number of candidates of one filter, recall by number of candidates, float32 [most], and the nearest.

    :param listed: rows [q, m] nearest by the full vector, in their order, `TOP` of them or more.
    """
    documents = stored(full.codes, dim)
    most = min(max(candidates), len(documents))
    sizes = [torch.bincount(level) for level in question.document_labels.long().T]
    parts: dict[int, list[tuple[Floats, ...]]] = {count: [] for count in candidates}
    truth = listed[:, :TOP]
    ranks = torch.zeros(most, device=truth.device)
    near: list[Found] = []
    for part in question.batches(most):
        kept, similarities = search(question.queries[part], documents, most)
        near.append(Found(kept[:, :_NEAR].clone(), similarities[:, :_NEAR].clone()))
        places = _places(kept, listed[part])
        ranks += torch.bincount(places[:, :TOP].flatten(), minlength=most + 1)[:most]
        labels = question.labels[part].long()
        hits = [
            (question.document_labels[kept, level] == labels[:, level, None]).cumsum(1) for level in range(len(sizes))
        ]
        for count in candidates:
            best = _reranked(question.queries[part], full, kept[:, :count], listed[part], places)
            own = [h[:, min(count, most) - 1] / _most(sizes[i], labels[:, i], count) for i, h in enumerate(hits)]
            parts[count].append(
                (_recall(best, truth[part]), _precision(question, best, part), _numpy(torch.stack(own, dim=1)))
            )
    curve = _numpy((ranks.cumsum(0) / truth.numel()).float())
    joined = {count: [np.concatenate(column) for column in zip(*found, strict=True)] for count, found in parts.items()}
    outcomes = [Outcome(documents.dim, count, "float32", *joined[count]) for count in candidates]
    return outcomes, curve, Found(*map(torch.cat, zip(*near, strict=True)))


def _places(kept: Tensor, listed: Tensor) -> Tensor:
    """Where in `kept` [q, c] each of `listed` [q, m] is, int64 [q, m], c if nowhere; without a [q, m, c] in between."""
    ordered, places = kept.sort(dim=1)
    at = torch.searchsorted(ordered, listed).clamp(max=kept.shape[1] - 1)
    return places.gather(1, at).masked_fill(ordered.gather(1, at) != listed, kept.shape[1])


def _reranked(queries: Tensor, full: Stored, kept: Tensor, listed: Tensor, places: Tensor) -> Tensor:
    """The `TOP` of `kept` [q, c] nearest by the full vector: the first in the list of these that the filter kept.

    Only where fewer are kept than wanted are vectors looked at.
    """
    k = min(TOP, kept.shape[1])
    inside = places < kept.shape[1]
    first = torch.arange(listed.shape[1], device=listed.device).where(inside, listed.shape[1])
    best = listed.gather(1, first.topk(k, largest=False).indices)
    few = (inside.sum(1) < k).nonzero()[:, 0]
    if len(few):
        rows = kept[few]
        best[few] = rows.gather(1, keys_of(rerank(queries[few], full, rows), rows).topk(k).indices)
    return best


def _most(sizes: Tensor, labels: Tensor, count: int) -> Tensor:
    """min(candidates, class size) for each query; NaN where no document has the label."""
    known = labels < len(sizes)
    found = torch.where(known, sizes[labels.clamp(max=len(sizes) - 1)], 0)
    return torch.where(found > 0, found.clamp(max=count).float(), torch.nan)


def _numpy(tensor: Tensor) -> Floats:
    return tensor.cpu().numpy()
