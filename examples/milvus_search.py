"""Milvus Lite: a funnel. The prefix field is searched first, then the full field among the ids that came through."""

import tempfile

import numpy as np
import polars as pl
from pymilvus import DataType, MilvusClient
from sentence_transformers import SentenceTransformer

rows = pl.read_parquet("vectors.parquet")  # pipeline export --format parquet --dims 64,256
client = MilvusClient(f"{tempfile.mkdtemp()}/texts.db")
schema, indexes = client.create_schema().add_field("id", DataType.INT64, is_primary=True), client.prepare_index_params()
for dim in (64, 256):
    schema.add_field(f"embedding_{dim}", DataType.FLOAT_VECTOR, dim=dim)
    indexes.add_index(f"embedding_{dim}", index_type="FLAT", metric_type="IP")
client.create_collection("texts", schema=schema, index_params=indexes)
for part in rows.select("id", "embedding_64", "embedding_256").iter_slices(5000):
    client.insert("texts", part.to_dicts())
client.flush("texts")  # before it a search takes many times as long


def search(query: np.ndarray, candidates: int = 200, top: int = 10) -> list[int]:
    short = query[:64] / np.linalg.norm(query[:64])
    near = [hit["id"] for hit in client.search("texts", [short], anns_field="embedding_64", limit=candidates)[0]]
    found = client.search("texts", [query], anns_field="embedding_256", limit=top, filter=f"id in {near}")
    return [hit["id"] for hit in found[0]]


model = SentenceTransformer("model")
print(rows[search(model.encode("book me a flight", normalize_embeddings=True))]["text"])
