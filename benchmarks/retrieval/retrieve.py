"""How fast prefixes are searched: beside FAISS on a CPU, the share of the memory bandwidth on a GPU, and memory.

    python benchmarks/retrieval/retrieve.py --json retrieve-cpu.json
    python benchmarks/retrieval/retrieve.py --parts memory --documents 1000000 --json retrieve-memory.json
    python benchmarks/retrieval/retrieve.py --device cuda --documents 1000000 --json retrieve-cuda.json

Vectors are drawn around class centres, float32, 256 dimensions; queries likewise. All engines of a part search the same
documents in the same run, with as many threads; medians of `--repeats`, after one call that is not counted.

`search`: one stage at 64 and 256 dimensions for 10, 0.1 % and 1 % of the documents, 256 queries at once and one at a
time; FAISS flat, HNSW and IVF where FAISS is installed (settings: `pipeline/retrieval/engines.py`), and what one
writes in plain torch. `found` is the share of the exact nearest that an engine finds. Then the two stages. On a GPU no
FAISS: instead bytes read a second, as a share of what copying memory reaches in the same run, for float32, float16 and
int8; for one query that is the documents, for 256 also the similarities, written once and read once.

`memory`: the peak resident memory of this process (getrusage) over a whole run of one embedding on that many documents,
expansion, head, all searches and formats of `pipeline retrieve` included, beside the vectors' own size (x 256 float32).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import heads
from benchmarks.measured import machine, timed
from pipeline.retrieval.documents import Corpus
from pipeline.retrieval.engines import INDEXES, build, faiss_is_there
from pipeline.retrieval.knn import search
from pipeline.retrieval.metrics import Question, measure
from pipeline.retrieval.quantization import KINDS, Stored, stored
from pipeline.retrieval.two_stage_search import two_stage

PARTS = ("search", "memory")
DIM, CLASSES, TOP, BATCH = 256, 150, 10, 256
DIMS = (64, DIM)
SHARES = (0.001, 0.01)

Row = dict[str, Any]


def drawn(rows: int, seed: int, dim: int = DIM) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [n, dim] float32 around class centres, and their classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((CLASSES, dim), dtype=np.float32)
    classes = rng.integers(0, CLASSES, rows)
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    vectors += centres[classes]
    return vectors, classes


def plain(queries: Tensor, documents: Stored, k: int) -> Tensor:
    """Search as one writes it: a product and `topk`, some queries at a time. Its ties fall as they may."""
    units = torch.nn.functional.normalize(queries[:, : documents.dim])
    step = max(1, (1 << 27) // len(documents))
    return torch.cat([(part @ documents.codes.T).topk(k).indices for part in units.split(step)])


def engines(documents: Stored) -> Iterator[tuple[str, float, Callable[[Tensor, int], Tensor]]]:
    """Each engine: its name, seconds to build, and what searches."""
    yield "ours", 0.0, lambda queries, k: search(queries, documents, k).rows
    yield "plain torch", 0.0, lambda queries, k: plain(queries, documents, k)
    if documents.device.type == "cpu" and faiss_is_there():
        for kind in INDEXES:
            index = build(kind, documents)
            yield f"faiss {kind}", index.build_seconds, index.search


def searches(full: Stored, queries: Tensor, repeats: int) -> Iterator[Row]:
    """Time every engine at every prefix and number of documents asked for."""
    counts = dict.fromkeys((TOP, *(max(TOP, round(share * len(full))) for share in SHARES)))
    for dim in DIMS:
        documents = stored(full.codes, dim)
        exact = {k: search(queries, documents, k).rows for k in counts}
        for name, seconds, ask in engines(documents):
            for k in counts:
                batch = timed(lambda ask=ask, k=k: ask(queries, k), repeats)
                single = timed(lambda ask=ask, k=k: ask(queries[:1], k), 5 * repeats)
                found = ask(queries, k).to(exact[k].device)
                shares = [float(torch.isin(a, b).float().mean()) for a, b in zip(exact[k], found, strict=True)]
                yield {
                    "engine": name, "dim": dim, "k": k, "batch ms": 1e3 * batch, "alone ms": 1e3 * single,
                    "found": statistics.mean(shares), "build s": seconds,
                }  # fmt: skip


def compared(rows: list[Row]) -> list[Row]:
    """Add to each row how often this search goes into its time."""
    ours = {(row["dim"], row["k"]): row for row in rows if row["engine"] == "ours"}
    for row in rows:
        mine = ours[row["dim"], row["k"]]
        row |= {f"{name} x ours": row[f"{name} ms"] / mine[f"{name} ms"] for name in ("batch", "alone")}
    return rows


def stages(full: Stored, queries: Tensor, repeats: int) -> Iterator[Row]:
    """Time the two stages, the filter in every format."""
    for kind in KINDS:
        filtering = stored(full.codes, DIMS[0], kind)
        for share in SHARES:
            count = max(TOP, round(share * len(full)))

            def both(asked: Tensor, filtering: Stored = filtering, count: int = count) -> Tensor:
                return two_stage(asked, filtering, full, count, TOP).rows

            batch, single = timed(lambda: both(queries), repeats), timed(lambda: both(queries[:1]), 5 * repeats)
            yield {"filter": kind, "candidates": count, "batch ms": 1e3 * batch, "alone ms": 1e3 * single}


def bandwidth(repeats: int) -> float:
    """Bytes per second that copying memory moves: read once and written once."""
    one = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(one)
    return 2 * one.numel() / timed(lambda: other.copy_(one), 5 * repeats)


def read(full: Stored, queries: Tensor, repeats: int) -> Iterator[Row]:
    """Bytes that a search on the GPU has to move a second, and their share of what copying reaches."""
    peak = bandwidth(repeats)
    for dim in DIMS:
        for kind in KINDS:
            documents = stored(full.codes, dim, kind)
            held = documents.bytes_per_document * len(documents)
            for asked in (1, BATCH):
                similarities = 0 if asked == 1 else 2 * 4 * asked * len(documents)
                for k in (TOP, max(TOP, round(SHARES[0] * len(full)))):
                    seconds = timed(
                        lambda documents=documents, asked=asked, k=k: search(queries[:asked], documents, k),
                        5 * repeats,
                    )
                    moved = held + similarities
                    yield {
                        "dim": dim, "storage": kind, "queries": asked, "k": k, "ms": 1e3 * seconds,
                        "GB": moved / 1e9, "GB/s": moved / seconds / 1e9, "share of copying": moved / seconds / peak,
                    }  # fmt: skip


def memory(documents: int) -> Row:
    """Run one embedding on simulated documents as `retrieve` does, and take the peak."""
    features, classes = drawn(15_000, 1, dim=384)
    labels = np.stack([classes % 10, classes], axis=1)
    head = heads.fit(features[:1000], labels[:1000], method="v5", seed=1, epochs=1)
    corpus = Corpus(features, labels, documents)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.perf_counter()
    full = corpus.embedded(head.embed, DIM)
    embedded = time.perf_counter() - started
    queries, asked = drawn(1000, 2, dim=384)
    question = Question.of(
        head.embed(queries), np.stack([asked % 10, asked], axis=1), corpus.document_labels, full.device
    )
    counts = sorted({max(TOP, round(share * documents)) for share in (0.001, 0.002, 0.005, 0.01, 0.02)})
    measure(question, full, (64, 128), (64, 128, 192), counts, ("float16", "int8"), lambda note: None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    own = documents * DIM * 4
    return {
        "documents": documents, "vectors MB": own / 1e6, "before MB": before / 1e6, "peak MB": peak / 1e6,
        "peak / vectors": peak / own, "embedding s": embedded, "all s": time.perf_counter() - started,
    }  # fmt: skip


def show(title: str, rows: list[Row]) -> None:
    """Print rows as a table."""
    print(f"\n{title}")
    columns = list(rows[0])
    cells = [columns, *([_spelled(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _spelled(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def faiss_version() -> dict[str, str]:
    """FAISS's version, if it is installed."""
    try:
        return {"faiss": metadata.version("faiss-cpu")}
    except metadata.PackageNotFoundError:
        return {}


def main() -> None:
    """Print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="search", help="search, memory or both, by commas")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts {', '.join(sorted(unknown))}: use {', '.join(PARTS)}")
    facts = {**machine(options.device), **faiss_version(), "documents": options.documents, "queries": BATCH}
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    results: dict[str, Any] = {}
    if "memory" in parts:  # first: the peak is the process's
        results["memory"] = [memory(options.documents)]
        show("memory of a whole run", results["memory"])
    if "search" in parts:
        full = stored(drawn(options.documents, 1)[0], DIM, device=options.device)
        queries = torch.from_numpy(drawn(BATCH, 2)[0]).to(options.device)
        results["search"] = compared(list(searches(full, queries, options.repeats)))
        show(f"one stage, {BATCH} queries at once and one alone", results["search"])
        results["stages"] = list(stages(full, queries, options.repeats))
        show(f"two stages, {DIMS[0]} to {DIM} dims", results["stages"])
        if options.device == "cuda":
            results["bandwidth"] = list(read(full, queries, options.repeats))
            show("memory bandwidth", results["bandwidth"])
    if options.json:
        options.json.write_text(json.dumps({**facts, **results}, indent=1))


if __name__ == "__main__":
    main()
