"""A coarse level that is derived from features: what it depends on, its file, and that every later command takes it."""

import json

import numpy as np
import polars as pl
import pytest

from pipeline.stages.coarse_level import class_centroids, clusters
from tests.pipeline.small_dataset import TOPICS, rows, write_csv

DIM = 24
DOMAINS = sorted(TOPICS)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """A vector per row, near its intent's centre, which lies near its domain's."""
    generator = np.random.default_rng(0)
    domains = {domain: generator.normal(size=DIM) * 3 for domain in DOMAINS}
    centres = {row[2]: domains[row[1]] + generator.normal(size=DIM) for row in rows()}
    return np.array([centres[row[2]] + generator.normal(size=DIM) * 0.3 for row in rows()], np.float32)


@pytest.fixture
def intents(tmp_path):
    return write_csv(
        tmp_path / "intents.csv", [(t, intent, split) for t, _, intent, split in rows()], "text,intent,split"
    )


def test_centroids_are_means_of_unit_rows_of_each_class():
    features = np.array([[2.0, 0], [0, 3], [1, 1], [5, 0]], np.float32)
    found, centroids = class_centroids(features, np.array([[7], [7], [2], [-1]]))
    assert found.tolist() == [2, 7]
    np.testing.assert_allclose(centroids, [[0.5**0.5, 0.5**0.5], [0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("count", range(2, 12))
def test_there_are_as_many_clusters_as_asked_for(count):
    found = clusters(np.random.default_rng(1).normal(size=(12, 5)), count)
    assert sorted(set(found.tolist())) == list(range(count))


def test_every_later_command_takes_it_and_its_names_can_be_edited(pipeline, intents, tmp_path, vectors):
    np.save(tmp_path / "v.npy", vectors)
    done = pipeline("embed", intents, "--embeddings", tmp_path / "v.npy", "--make-coarse", "3")
    assert done.returncode == 0 and "level derived is derived: 3 clusters" in done.stderr, done.stderr
    (path,) = (pipeline.artifacts / "data" / "coarse").iterdir()
    mapping = json.loads(path.read_text())
    assert {frozenset(one) for one in mapping["hierarchy"].values()} == {frozenset(one) for one in TOPICS.values()}

    (run,) = pipeline.json("fit-head", "--method", "joint", "--epochs", "1")["runs"]
    (score,) = (one for one in pipeline.json("score")["scores"] if one["run"] == run["id"])
    assert [len(prefix["levels"]) for prefix in score["prefixes"]] == [2] * 4
    page = pipeline.json("report")["path"]
    assert "is derived: 3 clusters" in open(page, encoding="utf-8").read()
    assert pipeline.json("data", "show", intents)["id"] == run["dataset"]
    out = tmp_path / "vectors.parquet"
    pipeline.json("export", "--method", "joint", "--format", "parquet", "--output", out)
    assert {"derived", "intent"} <= set(pl.read_parquet_schema(out))

    renamed = dict(zip(("one", "two", "three"), mapping["hierarchy"].values(), strict=True))
    edited = tmp_path / "names.json"
    edited.write_text(json.dumps(renamed))
    pipeline.json("embed", intents, "--embeddings", tmp_path / "v.npy", "--hierarchy", edited)
    shown = pipeline.json("data", "show", intents, "--hierarchy", edited)
    assert [level["classes"] for level in shown["levels"]] == [3, 6]


def test_it_depends_on_training_rows_alone_and_an_edited_file_is_kept(pipeline, intents, tmp_path, vectors):
    np.save(tmp_path / "a.npy", vectors)
    other = vectors.copy()
    test = [n for n, row in enumerate(rows()) if row[3] != "train"]
    other[test] = np.random.default_rng(2).normal(size=(len(test), DIM))
    np.save(tmp_path / "b.npy", other)
    for name in "ab":
        pipeline.json("embed", intents, "--embeddings", tmp_path / f"{name}.npy", "--make-coarse", "3")
    first, second = (pipeline.artifacts / "data" / "coarse").iterdir()
    hierarchy = json.loads(first.read_text())["hierarchy"]
    assert hierarchy == json.loads(second.read_text())["hierarchy"]
    for path in (first, second):
        path.write_text(json.dumps({"hierarchy": dict(zip("xyz", hierarchy.values(), strict=True))}))
    pipeline.json("embed", intents, "--embeddings", tmp_path / "a.npy", "--make-coarse", "3")
    assert json.loads(first.read_text())["hierarchy"].keys() == {"x", "y", "z"}


def test_what_cannot_be_made_is_said(pipeline, intents, small_csv, tmp_path, vectors):
    np.save(tmp_path / "v.npy", vectors)
    given = ("--embeddings", tmp_path / "v.npy", "--make-coarse")
    assert "from 2 to 5" in pipeline.fails("embed", intents, *given, "6")
    assert "has 2 levels" in pipeline.fails("embed", small_csv, *given, "2")
