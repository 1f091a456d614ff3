"""FAISS: an HNSW index of the prefixes filters, the dot products of the full vectors re-rank."""

import faiss
import numpy as np
import polars as pl
from sentence_transformers import SentenceTransformer

rows = pl.read_parquet("vectors.parquet")  # pipeline export --format parquet --dims 64,256
vectors = rows["embedding_256"].to_numpy()
prefixes = faiss.IndexHNSWFlat(64, 32, faiss.METRIC_INNER_PRODUCT)
prefixes.hnsw.efConstruction = 128
prefixes.add(rows["embedding_64"].to_numpy())


def search(query: np.ndarray, candidates: int = 200, top: int = 10) -> list[int]:
    prefixes.hnsw.efSearch = candidates
    short = query[:64] / np.linalg.norm(query[:64])
    near = prefixes.search(short[None], candidates)[1][0]
    near = near[near >= 0]
    return near[np.argsort(-vectors[near] @ query)[:top]].tolist()


model = SentenceTransformer("model")
print(rows[search(model.encode("book me a flight", normalize_embeddings=True))]["text"])
