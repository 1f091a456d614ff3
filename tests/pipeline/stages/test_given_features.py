"""Vectors made elsewhere as features: through every later command, and refused where they do not fit."""

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from cache.endpoint import PROBE
from tests.cache.embedding_server import LoopbackServer
from tests.pipeline.small_dataset import rows, write_csv

DIM = 48


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """A vector per row, near its intent's centre."""
    generator = np.random.default_rng(0)
    intents = sorted({row[2] for row in rows()})
    centres = generator.normal(size=(len(intents), DIM))
    found = [centres[intents.index(row[2])] + generator.normal(size=DIM) * 0.5 for row in rows()]
    return np.array(found, np.float32)


def test_every_later_command_takes_them(pipeline, small_csv, tmp_path, vectors):
    np.save(tmp_path / "Mine.npy", vectors)
    first = pipeline.json("embed", small_csv, "--embeddings", tmp_path / "Mine.npy")
    assert (first["backbone"], first["computed"], first["texts"]) == ("mine", 108, 108)
    assert pipeline.json("embed", small_csv, "--embeddings", tmp_path / "Mine.npy")["computed"] == 0
    runs = pipeline.json("fit-head", "--method", "v5,joint", "--seeds", "1,2", "--epochs", "1")["runs"]
    assert {run["backbone"] for run in runs} == {"mine"}
    scores = pipeline.json("score")["scores"]
    assert len(scores) >= len(runs)
    assert pipeline.json("compare")["comparisons"]
    assert pipeline.json("retrieve", "--filter-dim", "64")["results"]
    pipeline.json(
        "export", "--method", "v5", "--seed", "1", "--format", "parquet", "--output", tmp_path / "out.parquet"
    )
    assert len(pl.read_parquet(tmp_path / "out.parquet")) > 0
    texts = tmp_path / "new.txt"
    texts.write_text("a new text\n")
    assert "vectors from a file" in pipeline.fails(
        "encode", texts, "--method", "v5", "--output", tmp_path / "e.parquet"
    )
    assert "without an encoder work score" in pipeline.fails("cost")
    pipeline.json("data", "show", small_csv)


def test_all_three_kinds_of_files_are_one_feature_set(pipeline, small_csv, tmp_path, vectors):
    np.save(tmp_path / "a.npy", vectors)
    save_file({"x": vectors}, tmp_path / "a.safetensors")
    mixed = np.random.default_rng(1).permutation(len(vectors))
    table = {"text": [rows()[i][0] for i in mixed], "embedding": vectors[mixed].tolist()}
    pl.DataFrame(table, schema={"text": pl.String, "embedding": pl.List(pl.Float32)}).write_parquet(
        tmp_path / "a.parquet"
    )
    found = {pipeline.json("embed", small_csv, "--embeddings", tmp_path / f"a.{kind}")["fingerprint"]
             for kind in ("npy", "safetensors", "parquet")}  # fmt: skip
    assert len(found) == 1
    changed = vectors.copy()
    changed[7, 3] += 1e-3
    np.save(tmp_path / "a.npy", changed)
    assert pipeline.json("embed", small_csv, "--embeddings", tmp_path / "a.npy")["fingerprint"] not in found


def test_a_page_shows_no_search_of_vectors_that_had_the_name_before(pipeline, small_csv, tmp_path, vectors):
    def measured(given: np.ndarray, *more: str) -> str:
        np.save(tmp_path / "mine.npy", given)
        pipeline.json("embed", small_csv, "--embeddings", tmp_path / "mine.npy")
        pipeline.json("fit-head", "--method", "lda")
        for command in more:
            pipeline.json(command, "--queries", "10", "--engines", "flat")
        page = pipeline("report")
        assert page.returncode == 0, page.stderr
        return page.stderr

    assert "left out" not in measured(vectors, "retrieve")
    noise = np.random.default_rng(1).normal(size=vectors.shape).astype(np.float32)
    assert "none on the features mine-" in measured(noise)
    assert "left out" not in measured(vectors)


def test_one_text_with_two_vectors_names_both_rows(pipeline, tmp_path, vectors):
    twice = write_csv(tmp_path / "twice.csv", [*rows(), (rows()[4][0], *rows()[4][1:])])
    np.save(tmp_path / "v.npy", np.vstack([vectors, vectors[5]]))
    assert "rows 5 and 109" in pipeline.fails("embed", twice, "--embeddings", tmp_path / "v.npy")
    np.save(tmp_path / "v.npy", np.vstack([vectors, vectors[4]]))
    assert pipeline.json("embed", twice, "--embeddings", tmp_path / "v.npy")["computed"] == 108


def test_options_of_a_backbone_are_refused_beside_them(pipeline, small_csv, tmp_path, vectors):
    np.save(tmp_path / "v.npy", vectors)
    done = pipeline("embed", small_csv, "--embeddings", tmp_path / "v.npy", "--backbone", "minilm")
    assert done.returncode == 2
    assert "--backbone is about a backbone" in done.stderr


def test_reading_options_make_a_feature_set_of_their_own(pipeline, small_csv, tmp_path):
    plain = pipeline.json("embed", small_csv, "--backbone", "minilm", "--store-dtype", "float32", "--dtype", "float32")
    asked = ["--pooling", "cls", "--prompt", "query: ", "--end-token", "[SEP]"]
    other = pipeline.json("embed", small_csv, "--backbone", "minilm", *asked)
    assert other["fingerprint"] != plain["fingerprint"]
    assert other["backbone"].startswith("minilm-cls-")
    run = pipeline.json("fit-head", "--method", "v5", "--epochs", "1")["runs"][0]
    texts = tmp_path / "new.txt"
    texts.write_text(rows()[0][0] + "\n")
    encoded = pipeline.json("encode", texts, "--run", run["id"], "--output", tmp_path / "e.parquet")
    assert encoded["computed"] == 0  # with the same pooling, prompt and end token


def test_an_endpoint_is_a_backbone_for_every_command(pipeline, small_csv, tmp_path):
    server = LoopbackServer()
    try:
        options = ["--backbone", "openai:tiny", "--endpoint", server.url]
        done = pipeline("embed", small_csv, *options, OPENAI_API_KEY="sk-secret")
        assert done.returncode == 0, done.stderr
        assert "sk-secret" not in done.stdout + done.stderr
        assert pipeline.json("embed", small_csv, *options)["computed"] == 0
        run = pipeline.json("fit-head", "--method", "joint", "--epochs", "1")["runs"][0]
        assert run["backbone"] == "openai-tiny"
        texts = tmp_path / "new.txt"
        texts.write_text(f"a text that is new\n{rows()[0][0]}\n")
        assert pipeline.json("encode", texts, "--run", run["id"], "--output", tmp_path / "e.parquet")["computed"] == 1
        assert max(n for text, n in server.answered.items() if text != PROBE) == 1
        pipeline.json("data", "show", small_csv)
    finally:
        server.stop()
    assert pipeline.json("score")["scores"]  # no server needed
