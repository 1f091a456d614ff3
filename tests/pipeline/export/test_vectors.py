"""Vectors as others use them: read by the real polars, FAISS and scikit-learn."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import cache
from tests.pipeline.conftest import Pipeline
from tests.pipeline.small_dataset import rows


def test_parquet_has_every_row_and_scores_like_ours_in_scikit_learn(fitted, tmp_path):
    """As MTEB classifies: train on exported vectors, in a process that knows no pipeline."""
    files = {}
    for dim in (64, 256):
        files[dim] = tmp_path / f"v5-{dim}.parquet"
        said = fitted.json(
            "export", "--method", "v5", "--seed", "1", "--format", "parquet", "--dim", dim, "--output", files[dim]
        )
        assert (said["format"], said["rows"], said["dim"]) == ("parquet", len(rows()), dim)
    frame = pl.read_parquet(files[64])
    assert frame.columns == ["row", "text", "level0", "level1", "split", "key", "embedding"]
    assert frame.select("text", "level0", "level1", "split").rows() == rows()
    assert frame["key"].to_list() == [bytes(key).hex() for key in cache.text_keys([row[0] for row in rows()])]
    assert frame.schema["embedding"] == pl.Array(pl.Float32, 64)
    code = """
import json, sys
import numpy as np, polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

def voted(labels, similarities):
    # most votes, then the larger summed similarity, then the lower label
    names = np.unique(labels)
    rank = [((labels == n).sum(), similarities[labels == n].sum(), -i) for i, n in enumerate(names)]
    return names[max(range(len(names)), key=rank.__getitem__)]

found = {}
for path in sys.argv[1:]:
    frame = pl.read_parquet(path)
    part = {s: frame.filter(pl.col("split") == s) for s in ("train", "test")}
    x, y = (part[s]["embedding"].to_numpy() for s in ("train", "test"))
    for level in ("level0", "level1"):
        a, b = (part[s][level].to_numpy() for s in ("train", "test"))
        distances, near = NearestNeighbors(n_neighbors=5, algorithm="brute", metric="cosine").fit(x).kneighbors(y)
        answers = np.array([voted(a[row], 1 - d) for row, d in zip(near, distances)])
        logistic = LogisticRegression(max_iter=1000).fit(x, a)
        found[f"{x.shape[1]} {level}"] = [float((answers == b).mean()), logistic.score(y, b)]
assert "pipeline" not in sys.modules and "torch" not in sys.modules
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, files.values())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    (score,) = [s for s in fitted.json("score", "--method", "v5")["scores"] if s["seed"] == 1]
    for prefix in score["prefixes"]:
        if prefix["dim"] in files:
            for level in prefix["levels"]:
                knn, logistic = found[f"{prefix['dim']} level{level['level']}"]
                assert knn == pytest.approx(level["accuracy"])
                assert logistic > 0.5


def test_parquet_with_a_column_per_prefix_and_in_fewer_bytes(fitted, tmp_path):
    path = tmp_path / "vectors.parquet"
    said = fitted.json(
        "export", "--method", "v5", "--seed", "1", "--format", "parquet", "--dims", "64,256",
        "--quantize", "int8,binary",
        "--output", path,
    )  # fmt: skip
    frame = pl.read_parquet(path)
    assert said["columns"] == frame.columns
    assert frame.columns[:5] == ["id", "text", "level0", "level1", "split"]
    assert frame["id"].to_list() == list(range(len(rows())))
    full = frame["embedding_256"].to_numpy()
    for dim in (64, 256):
        units = frame[f"embedding_{dim}"].to_numpy()
        cut = full[:, :dim] / np.linalg.norm(full[:, :dim], axis=1, keepdims=True)
        np.testing.assert_allclose(units, cut, atol=1e-6)
        codes, scale = frame[f"embedding_{dim}_int8"].to_numpy(), frame[f"embedding_{dim}_int8_scale"].to_numpy()
        restored = codes.astype(np.float32) * scale[:, None]
        np.testing.assert_allclose(np.linalg.norm(restored, axis=1), 1, atol=1e-5)
        assert (restored * units).sum(1).min() > 0.999
        bits = np.unpackbits(frame[f"embedding_{dim}_binary"].to_numpy(), axis=1)
        assert np.array_equal(bits == 1, units > 0)


def test_faiss_finds_what_we_find(fitted, tmp_path):
    import faiss

    path = tmp_path / "v5.faiss"
    export = ("export", "--method", "v5", "--seed", "1", "--dim", "64")
    said = fitted.json(*export, "--format", "faiss", "--split", "train", "--output", path)
    fitted.json(*export, "--format", "parquet", "--output", tmp_path / "v5.parquet")
    index, table = faiss.read_index(str(path)), pl.read_parquet(said["row_table"])
    assert index.ntotal == table.height == said["rows"] == sum(row[3] == "train" for row in rows())
    assert [rows()[row] for row in table["row"]] == table.select("text", "level0", "level1", "split").rows()
    expected = pl.read_parquet(tmp_path / "v5.parquet")["embedding"].to_numpy()
    similarities, ids = index.search(expected[:10], 3)
    train = np.array([row[3] == "train" for row in rows()])
    cosines = np.where(train, expected[:10] @ expected.T, -np.inf)
    assert np.allclose(similarities, -np.sort(-cosines, axis=1)[:, :3], atol=1e-6)
    assert np.allclose(np.take_along_axis(cosines, ids, axis=1), similarities, atol=1e-6)


def test_a_head_that_gives_no_numbers_is_named(fitted, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = Pipeline(tmp_path / "artifacts", tmp_path)
    shutil.copytree(fitted.artifacts, copy.artifacts)
    run = next(run for run in copy.json("runs", "list")["runs"] if run["method"] == "v5")
    path = Path(run["path"]) / "head.safetensors"
    tensors = load_file(path)
    tensors["input.bias"][0] = float("nan")
    save_file(tensors, path)
    said = copy.fails("export", "--run", run["id"], "--format", "parquet", "--output", tmp_path / "a.parquet")
    assert run["id"] in said
    assert not (tmp_path / "a.parquet").exists()
