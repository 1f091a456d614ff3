"""Engines for the filter side by side: our exact search, FAISS's flat index, HNSW and IVF.

For each the whole two-stage search with that engine as its filter: what building takes, bytes on disk, how long a query
waits, queries per second in a batch, the share of the exact candidates that the engine finds, recall@10 and label
precision@10 after re-ranking. An approximate filter loses documents before re-ranking can find them; how many is what
its speed costs. Methods are compared through the exact one, or an index's losses would be taken for theirs.

FAISS as the filter, where it is installed: flat (exact), HNSW and IVF (approximate).

For the same answer FAISS is not faster: with 100,000 documents, 256 queries at once and two cores its flat index takes
twice as long as our search for 10 and for 100 of 64 dimensions, as long for 1,000, and four to ten times as long at 256
(`benchmarks/retrieval/retrieve.py`). So `retrieve` searches exactly with our own code. HNSW and IVF are two to sixteen
times as fast by giving another answer, 99 % of the exact one for up to 100 documents and 87 to 90 % for 1,000; where
FAISS is installed, `retrieve` filters with them too and shows what the two stages then find (`engines.py`).

Settings are usual ones: HNSW with 32 links, 64 candidates while building, and as many as documents asked for (64 at
least) while searching; IVF with 4 sqrt(n) cells, and so many of them searched that four times the documents asked for
are looked at, 16 at least.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.retrieval.knn import keys_of, search
from pipeline.retrieval.metrics import TOP, Question
from pipeline.retrieval.quantization import Stored, stored, unit_prefixes
from pipeline.retrieval.timing import BATCH, Timing, time_alone, time_search
from pipeline.retrieval.two_stage_search import rerank
from pipeline.terminal import extras

INDEXES = {"flat": "Flat", "hnsw": "HNSW32,Flat", "ivf": "IVF{cells},Flat"}
"""FAISS's indexes by name, as its factory spells them."""
_WHILE_BUILDING, _LEAST_SEARCHED = 64, 64
_LEAST_CELLS, _TIMES_ASKED = 16, 4


@dataclass(frozen=True)
class FaissIndex:
    """A built index, what building it took, and its bytes when written to a file."""

    kind: str
    dim: int
    index: Any
    build_seconds: float
    disk_bytes: int

    def search(self, queries: Tensor, k: int) -> Tensor:
        """Rows of the k nearest documents that the index finds, int64 [q, k]; -1 where it finds fewer.

        :param queries: real [q, D].
        """
        import faiss

        units = unit_prefixes(queries, self.dim, torch.device("cpu")).numpy()
        if self.kind == "hnsw":
            self.index.hnsw.efSearch = max(k, _LEAST_SEARCHED)
        elif self.kind == "ivf":
            looked_at = math.ceil(_TIMES_ASKED * k * self.index.nlist / self.index.ntotal)
            self.index.nprobe = min(self.index.nlist, max(_LEAST_CELLS, looked_at))
        faiss.omp_set_num_threads(torch.get_num_threads())
        return torch.from_numpy(self.index.search(units, k)[1])


def faiss_is_there() -> bool:
    """Whether FAISS is installed."""
    try:
        return find_spec("faiss") is not None
    except ValueError:  # something made it unimportable in this process
        return False


def build(kind: str, documents: Stored) -> FaissIndex:
    """Build an index of stored prefixes.

    :param kind: a key of `INDEXES`.
    :param documents: in float32.
    :raises PipelineError: if FAISS is not installed.
    """
    faiss = extras.needed("faiss")
    faiss.omp_set_num_threads(torch.get_num_threads())
    began = time.perf_counter()
    units = documents.codes.cpu().numpy()
    cells = max(1, min(round(4 * math.sqrt(len(units))), len(units) // 39))  # 39 rows per cell: what its k-means wants
    index = faiss.index_factory(units.shape[1], INDEXES[kind].format(cells=cells), faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction = _WHILE_BUILDING
    index.train(units)
    index.add(units)
    seconds = time.perf_counter() - began
    size = size_written(lambda path: faiss.write_index(index, str(path)))
    return FaissIndex(kind, documents.dim, index, seconds, size)


Ask = Callable[[Tensor, int], Tensor]
"""From queries and a number of documents to their rows."""
OURS = "exact"
"""The name of our own search among the engines."""


@dataclass(frozen=True)
class Engine(Timing):
    """One engine as filter, with the times of both stages.

    `filter_ms` is a query alone in the filter; `found` the share of the exact candidates.
    """

    engine: str
    documents: int
    filter_dim: int
    candidates: int
    build_seconds: float
    index_bytes: int
    filter_ms: float
    found: float
    recall_at_10: float
    precision_at_10: tuple[float, ...]


def time_engines(
    kinds: Sequence[str], filters: Sequence[int], counts: Sequence[int], full: Stored, question: Question,
    exact_timing: Callable[[int, int], Timing], step: Callable[[str], None],
) -> list[Engine]:  # fmt: skip
    """Time our search and FAISS's indexes as the filter, at the fewest and the middle number of candidates.

    :param exact_timing: from a filter and a number of candidates to what our search took, both stages.
    """
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
                filtered = partial(_filtered, ask, count, full)
                both = partial(_reranked, filtered, full)
                kept = filtered(asked)
                best = _best(kept, asked, full)
                timing = exact_timing(dim, count) if kind == OURS else time_search(both, question.queries)
                rows.append(
                    Engine(
                        **asdict(timing),
                        engine=kind,
                        documents=len(documents),
                        filter_dim=dim,
                        candidates=count,
                        build_seconds=seconds,
                        index_bytes=size,
                        filter_ms=time_alone(filtered, question.queries),
                        found=_found(exact[count], kept),
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
    return seconds, documents.bytes_written, lambda queries, k: search(queries, documents, k).rows


def size_written(write: Callable[[Path], None]) -> int:
    """Bytes of a file, by writing one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "written")
        write(path)
        return path.stat().st_size


def _found(exact: Tensor, kept: Tensor) -> float:
    shares = [torch.isin(theirs, ours).float().mean() for theirs, ours in zip(exact, kept, strict=True)]
    return float(torch.stack(shares).mean())


def _filtered(ask: Ask, count: int, full: Stored, queries: Tensor) -> Tensor:
    return ask(queries, count).to(full.device)


def _reranked(filtered: Callable[[Tensor], Tensor], full: Stored, queries: Tensor) -> Tensor:
    return _best(filtered(queries), queries, full)


def _best(kept: Tensor, queries: Tensor, full: Stored) -> Tensor:
    """Best rows of each query among those that the filter keeps, nearest first; -1 is no document."""
    rows = kept.clamp(min=0)
    similarities = rerank(queries, full, rows).masked_fill(kept < 0, -torch.inf)
    return kept.gather(1, keys_of(similarities, rows).topk(min(TOP, kept.shape[1]), dim=1).indices)


def _precision(question: Question, best: Tensor) -> tuple[float, ...]:
    own = question.document_labels[best.clamp(min=0)] == question.labels[: len(best), None]
    shares = (own & (best >= 0)[:, :, None]).float().mean(1).masked_fill(~question.known[: len(best)], torch.nan)
    return tuple(shares.nanmean(0).tolist())
