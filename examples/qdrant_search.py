"""Qdrant, in its local mode: one query, whose prefetch searches the prefixes and which re-ranks by the full vectors."""

import numpy as np
import polars as pl
from qdrant_client import QdrantClient, models
from sentence_transformers import SentenceTransformer

rows = pl.read_parquet("vectors.parquet")  # pipeline export --format parquet --dims 64,256
client = QdrantClient(":memory:")  # a server searches by HNSW, this mode exactly
sizes = {"short": 64, "full": 256}
vectors = {name: models.VectorParams(size=size, distance=models.Distance.DOT) for name, size in sizes.items()}
client.create_collection("texts", vectors_config=vectors)
columns = {name: rows[f"embedding_{size}"].to_numpy() for name, size in sizes.items()}
client.upload_collection("texts", columns, ids=rows["id"].to_list())


def search(query: np.ndarray, candidates: int = 200, top: int = 10) -> list[int]:
    short = query[:64] / np.linalg.norm(query[:64])
    near = models.Prefetch(query=short.tolist(), using="short", limit=candidates)
    found = client.query_points("texts", prefetch=near, query=query.tolist(), using="full", limit=top)
    return [point.id for point in found.points]


model = SentenceTransformer("model")
print(rows[search(model.encode("book me a flight", normalize_embeddings=True))]["text"])
