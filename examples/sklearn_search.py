"""scikit-learn: brute force over the prefixes filters, the dot products of the full vectors re-rank."""

import numpy as np
import polars as pl
from sentence_transformers import SentenceTransformer
from sklearn.neighbors import NearestNeighbors

rows = pl.read_parquet("vectors.parquet")  # pipeline export --format parquet --dims 64,256
vectors = rows["embedding_256"].to_numpy()
prefixes = NearestNeighbors(metric="cosine", algorithm="brute").fit(rows["embedding_64"].to_numpy())


def search(query: np.ndarray, candidates: int = 200, top: int = 10) -> list[int]:
    near = prefixes.kneighbors(query[None, :64], min(candidates, len(vectors)), return_distance=False)[0]
    return near[np.argsort(-vectors[near] @ query)[:top]].tolist()


model = SentenceTransformer("model")
print(rows[search(model.encode("book me a flight", normalize_embeddings=True))]["text"])
