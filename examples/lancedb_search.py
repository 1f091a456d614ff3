"""LanceDB, embedded: a search of the prefix column filters, a search of the full column among its ids re-ranks."""

import tempfile

import lancedb
import numpy as np
import polars as pl
from sentence_transformers import SentenceTransformer

rows = pl.read_parquet("vectors.parquet")  # pipeline export --format parquet --dims 64,256
texts = lancedb.connect(tempfile.mkdtemp()).create_table("texts", rows.to_arrow())
if len(rows) >= 10_000:  # below that, LanceDB reads all vectors as fast, and exactly
    texts.create_index("dot", vector_column_name="embedding_64", index_type="IVF_FLAT")


def search(query: np.ndarray, candidates: int = 200, top: int = 10) -> list[int]:
    short = query[:64] / np.linalg.norm(query[:64])
    near = texts.search(short, "embedding_64").distance_type("dot").nprobes(40).limit(candidates)
    ids = ", ".join(str(row["id"]) for row in near.select(["id", "_distance"]).to_list())
    found = texts.search(query, "embedding_256").distance_type("dot").where(f"id IN ({ids})", prefilter=True)
    return [row["id"] for row in found.limit(top).select(["id", "_distance"]).to_list()]


model = SentenceTransformer("model")
print(rows[search(model.encode("book me a flight", normalize_embeddings=True))]["text"])
