"""FAISS as the filter, where it is installed: flat (exact), HNSW and IVF (approximate).

For the same answer FAISS is not faster: with 100,000 documents, 256 queries at once and two cores its flat index takes
twice as long as our search for 10 and for 100 of 64 dimensions, as long for 1,000, and four to ten times as long at 256
(`benchmarks/retrieve.py`). So `retrieve` searches exactly with our own code. HNSW and IVF are two to sixteen times as
fast by giving another answer, 99 % of the exact one for up to 100 documents and 87 to 90 % for 1,000; where FAISS is
installed, `retrieve` filters with them too and shows what the two stages then find (`engines.py`).

Settings are usual ones: HNSW with 32 links, 64 candidates while building, and as many as documents asked for (64 at
least) while searching; IVF with 4 sqrt(n) cells, and so many of them searched that four times the documents asked for
are looked at, 16 at least.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import extras
from pipeline.retrieval.storage import Stored, unit_prefixes

_LINKS, _WHILE_BUILDING, _LEAST_SEARCHED = 32, 64, 64
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
    faiss = extras.faiss()
    faiss.omp_set_num_threads(torch.get_num_threads())
    began = time.perf_counter()
    units = documents.codes.cpu().numpy()
    index = INDEXES[kind](faiss, units)
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index.faiss")
        faiss.write_index(index, str(path))
        size = path.stat().st_size
    return FaissIndex(kind, documents.dim, index, seconds, size)


def _flat(faiss: Any, units: np.ndarray) -> Any:
    index = faiss.IndexFlatIP(units.shape[1])
    index.add(units)
    return index


def _hnsw(faiss: Any, units: np.ndarray) -> Any:
    index = faiss.IndexHNSWFlat(units.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _WHILE_BUILDING
    index.add(units)
    return index


def _ivf(faiss: Any, units: np.ndarray) -> Any:
    cells = max(1, min(round(4 * math.sqrt(len(units))), len(units) // 39))  # 39 rows a cell: what its k-means wants
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(units.shape[1]), units.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.train(units)
    index.add(units)
    return index


INDEXES: Mapping[str, Callable[[Any, np.ndarray], Any]] = {"flat": _flat, "hnsw": _hnsw, "ivf": _ivf}
"""FAISS's indexes by name."""
