"""An export that cannot be made says so before anything is written."""

from __future__ import annotations

import pytest

from pipeline.commands.export import needed_dim
from tests.pipeline.evaluation.predicted import identity, predicted


def test_bad_requests_say_what_to_do(fitted, tmp_path):
    there = tmp_path / "there.parquet"
    there.write_text("mine")
    parquet, out = ("export", "--format", "parquet"), ("--output", tmp_path / "a.parquet")
    assert "--output" in fitted.fails(*parquet, "--method", "v5", "--output", there)
    assert there.read_text() == "mine"
    (tmp_path / "free.rows.parquet").write_text("mine")
    faiss = fitted.fails("export", "--format", "faiss", "--method", "v5", "--output", tmp_path / "free")
    assert "free.rows.parquet is already there" in faiss
    assert "no run with method joint" in fitted.fails(*parquet, "--method", "joint", *out)
    assert "64, 128, 192, 256" in fitted.fails(*parquet, "--method", "v5", "--dims", "64,65", *out)
    model = ("export", "--format", "sentence-transformers", "--method", "v5", "--output", tmp_path / "m")
    assert "truncate_dim" in fitted.fails(*model, "--dim", "64", status=2)
    assert "--dims" in fitted.fails(*parquet, "--method", "v5", "--quantize", "int8", *out, status=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["free.rows.parquet", "there.parquet"]


@pytest.mark.parametrize(
    ("package", "kind"),
    [("sentence_transformers", "sentence-transformers"), ("faiss", "faiss"), ("onnxruntime", "onnx")],
)
def test_a_missing_extra_is_named(fitted, tmp_path, package, kind):
    call = ("export", "--method", "v5", "--format", kind, "--output", tmp_path / "out")
    said = fitted.fails(*call, without=package)
    assert "pip install" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("finest", "dim"), [((0.5, 0.6, 0.7, 0.8), 256), ((0.5, 0.6, 0.8, 0.8), 192), ((0.8,) * 4, 64)]
)
def test_the_line_that_loads_a_model_cuts_where_no_level_loses_more_than_a_point(finest, dim):
    """It named 64 dimensions always, also where `run` had advised 192."""
    assert needed_dim(predicted([[0.95, share] for share in finest], texts=4_000).score(identity())) == dim
