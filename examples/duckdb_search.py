"""DuckDB with vss: one statement; its HNSW index of the prefixes filters, the dot products of full vectors re-rank."""

import duckdb
import numpy as np
import polars as pl
from duckdb_extensions import import_extension
from sentence_transformers import SentenceTransformer

rows = pl.read_parquet("vectors.parquet")  # pipeline export --format parquet --dims 64,256
base = duckdb.connect()
import_extension("vss", con=base)
base.execute("LOAD vss")
base.register("vectors", rows.to_arrow())
base.execute("CREATE TABLE texts AS SELECT id, embedding_64, embedding_256 FROM vectors")
base.execute("CREATE INDEX prefixes ON texts USING hnsw (embedding_64) WITH (metric = 'ip')")


def search(query: np.ndarray, candidates: int = 200, top: int = 10) -> list[int]:
    short = query[:64] / np.linalg.norm(query[:64])
    base.execute(f"SET hnsw_ef_search = {candidates}")
    near = f"SELECT * FROM texts ORDER BY array_negative_inner_product(embedding_64, ?::FLOAT[64]) LIMIT {candidates}"
    by_full = f"ORDER BY array_negative_inner_product(embedding_256, ?::FLOAT[256]) LIMIT {top}"
    return [row[0] for row in base.execute(f"SELECT id FROM ({near}) {by_full}", [short, query]).fetchall()]


model = SentenceTransformer("model")
print(rows[search(model.encode("book me a flight", normalize_embeddings=True))]["text"])
