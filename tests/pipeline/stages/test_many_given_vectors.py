"""2,000 vectors of 1,536 dims, as an embeddings API returns them, through every command of a user's day."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.pipeline.small_dataset import write_csv

ROWS, DIM, AREAS, TOPICS = 2000, 1536, 5, 20
METHODS = ("lda", "v5", "joint")


@pytest.mark.slow
def test_vectors_of_1536_dims_are_embedded_fitted_scored_reported_and_exported(pipeline, tmp_path):
    generator = np.random.default_rng(0)
    topics = generator.integers(TOPICS, size=ROWS)
    texts = [f"request number {i}" for i in range(ROWS)]
    labelled = [(text, f"area {topic % AREAS}", f"topic {topic}") for text, topic in zip(texts, topics, strict=True)]
    table = write_csv(tmp_path / "mine.csv", labelled, header="text,level0,level1")
    vectors = generator.normal(size=(ROWS, DIM)).astype(np.float32)
    np.save(tmp_path / "api.npy", vectors)

    embedded = pipeline.json("embed", table, "--embeddings", tmp_path / "api.npy", "--name", "api")
    assert (embedded["texts"], embedded["computed"], embedded["backbone"]) == (ROWS, ROWS, "api")

    runs = pipeline.json("fit-head", "--method", ",".join(METHODS), "--epochs", "1")["runs"]
    assert {(run["method"], run["backbone"]) for run in runs} == {(method, "api") for method in METHODS}

    scores = [score for score in pipeline.json("score")["scores"] if score["method"] in METHODS]
    assert {score["backbone"] for score in scores} == {"api"}
    for score in scores:  # vectors that know nothing of the labels: no better than luck
        area, topic = (level["accuracy"] for level in score["prefixes"][-1]["levels"])
        assert area < 2 / AREAS
        assert topic < 3 / TOPICS

    page = Path(pipeline.json("report")["path"])
    assert "request number" in page.read_text()

    output = tmp_path / "vectors.parquet"
    pipeline.json("export", "--method", "lda", "--format", "parquet", "--dims", "64,256", "--output", output)
    exported = pl.read_parquet(output)
    assert exported["text"].to_list() == texts
    for dim in (64, 256):
        lengths = np.linalg.norm(exported[f"embedding_{dim}"].to_numpy(), axis=1)
        assert np.allclose(lengths, 1, atol=1e-5)
