"""Engines for the filter side by side: our exact search, FAISS's flat index, HNSW and IVF.

For each: what building takes, bytes on disk, how long a query waits, queries a second in a batch, the share of the
exact candidates that it finds, and the recall@10 of the two stages when it filters. An approximate filter loses
documents before re-ranking can find them; how many is what its speed costs.
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

OURS = "exact"
"""The name of our own search among the engines."""


@dataclass(frozen=True)
class Engine:
    """One engine as filter: `found` is the share of the exact candidates, `recall_at_10` that of the two stages."""

    engine: str
    documents: int
    filter_dim: int
    candidates: int
    build_seconds: float
    index_bytes: int
    timing: Timing
    found: float
    recall_at_10: float

    def to_dict(self) -> dict[str, Any]:
        """Spell the row out for JSON; the timing is of the filter alone."""
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
                kept = ask(asked, count).to(truth.device)
                row = (_found(exact[count], kept), _recall(asked, full, kept, truth))
                timing = time_search(lambda queries, count=count, ask=ask: ask(queries, count), question.queries)  # type: ignore[misc]
                rows.append(Engine(kind, len(documents), dim, count, seconds, size, timing, *row))
    return rows


def _ready(kind: str, documents: Stored) -> tuple[float, int, Callable[[Tensor, int], Tensor]]:
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


def _recall(queries: Tensor, full: Stored, kept: Tensor, truth: Tensor) -> float:
    """Share of the ten nearest by the full vector that re-ranking finds among what was kept; -1 is no document."""
    similarities = rerank(queries, full, kept.clamp(min=0)).masked_fill(kept < 0, -torch.inf)
    best = kept.gather(1, keys_of(similarities, kept.clamp(min=0)).topk(min(TOP, kept.shape[1]), dim=1).indices)
    return float((truth[:, :, None] == best[:, None, :]).any(2).float().mean())
