"""Engines for the filter side by side: our exact search, FAISS's flat index, HNSW and IVF.

For each the whole two-stage search with that engine as its filter: what building takes, bytes on disk, how long a query
waits, queries a second in a batch, the share of the exact candidates that the engine finds, recall@10 and label
precision@10 after re-ranking. An approximate filter loses documents before re-ranking can find them; how many is what
its speed costs. Methods are compared through the exact one, or an index's losses would be taken for theirs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.retrieval.exact import keys_of, rerank, search
from pipeline.retrieval.faiss_search import build
from pipeline.retrieval.measures import TOP, Question
from pipeline.retrieval.storage import Stored, stored
from pipeline.retrieval.timing import BATCH, Timing, time_search

Ask = Callable[[Tensor, int], Tensor]
"""From queries and a number of documents to their rows."""
OURS = "exact"
"""The name of our own search among the engines."""


@dataclass(frozen=True)
class Engine:
    """One engine as filter.

    `filter_ms` is a query alone in the filter, `timing` of both stages; `found` the share of the exact candidates.
    """

    engine: str
    documents: int
    filter_dim: int
    candidates: int
    build_seconds: float
    index_bytes: int
    filter_ms: float
    timing: Timing
    found: float
    recall_at_10: float
    precision_at_10: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Spell the row out for JSON."""
        row = asdict(self)
        return {**{name: value for name, value in row.items() if name != "timing"}, **row["timing"]}


def time_engines(
    kinds: Sequence[str], filters: Sequence[int], counts: Sequence[int], full: Stored, question: Question,
    step: Callable[[str], None],
) -> list[Engine]:  # fmt: skip
    """Time our search and FAISS's indexes as the filter, at the fewest and the middle number of candidates."""
    rows = []
    asked = question.queries[:BATCH]
    truth = search(asked, full, TOP).rows
    for dim in filters:
        documents = stored(full.codes, dim)
        chosen = dict.fromkeys((counts[0], counts[len(counts) // 2]))
        exact = {count: search(asked, documents, count).rows for count in chosen}
        for kind in (OURS, *kinds):
            step(f"engine {kind}, {dim} dims")
            seconds, size, ask = _ready(kind, documents)
            for count in chosen:
                best = _reranked(asked, full, ask(asked, count).to(truth.device))
                rows.append(
                    Engine(
                        engine=kind,
                        documents=len(documents),
                        filter_dim=dim,
                        candidates=count,
                        build_seconds=seconds,
                        index_bytes=size,
                        filter_ms=time_search(_filter(ask, count), question.queries).latency_ms,
                        timing=time_search(_both(ask, count, full), question.queries),
                        found=_found(exact[count], ask(asked, count).to(truth.device)),
                        recall_at_10=float((truth[:, :, None] == best[:, None, :]).any(2).float().mean()),
                        precision_at_10=_precision(question, best),
                    )
                )
    return rows


def _ready(kind: str, documents: Stored) -> tuple[float, int, Ask]:
    """Build an engine: seconds, bytes on disk, and what searches."""
    if kind != OURS:
        index = build(kind, documents)
        return index.build_seconds, index.disk_bytes, index.search
    began = time.perf_counter()
    stored(documents.codes, documents.dim)
    seconds = time.perf_counter() - began
    return seconds, disk_bytes(documents), lambda queries, k: search(queries, documents, k).rows


def disk_bytes(documents: Stored) -> int:
    """Bytes of the documents as a file, by writing one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "documents.npz")
        documents.write(path)
        return path.stat().st_size


def _found(exact: Tensor, kept: Tensor) -> float:
    shares = [torch.isin(theirs, ours).float().mean() for theirs, ours in zip(exact, kept, strict=True)]
    return float(torch.stack(shares).mean())


def _filter(ask: Ask, count: int) -> Callable[[Tensor], Tensor]:
    return lambda queries: ask(queries, count)


def _both(ask: Ask, count: int, full: Stored) -> Callable[[Tensor], Tensor]:
    return lambda queries: _reranked(queries, full, ask(queries, count).to(full.device))


def _reranked(queries: Tensor, full: Stored, kept: Tensor) -> Tensor:
    """Best rows of each query among those kept, nearest first; -1 is no document."""
    rows = kept.clamp(min=0)
    similarities = rerank(queries, full, rows).masked_fill(kept < 0, -torch.inf)
    return kept.gather(1, keys_of(similarities, rows).topk(min(TOP, kept.shape[1]), dim=1).indices)


def _precision(question: Question, best: Tensor) -> tuple[float, ...]:
    own = question.document_labels[best.clamp(min=0)] == question.labels[: len(best), None]
    return tuple((own & (best >= 0)[:, :, None]).float().mean(dim=(0, 1)).tolist())
