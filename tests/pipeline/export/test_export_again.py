"""An export called again: its own work is done or finished, anything else is left as it is."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from pipeline.workspace.records import write_record

EXPORT = ("export", "--method", "v5", "--seed", "1", "--format")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["sentence-transformers", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_complete_model_is_done_and_a_changed_one_is_named(kind, fitted, tmp_path):
    model = tmp_path / "model"
    first = fitted.json(*EXPORT, kind, "--output", model)
    before = contents(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert first["bytes"] == sum(len(content) for name, content in before.items() if name != "export.json")
    assert fitted.json(*EXPORT, kind, "--output", model) == first
    other = ("export", "--method", "mrl", "--seed", "1", "--format", kind, "--output", model)
    assert f"{model} is a folder that is already there" in fitted.fails(*other)
    assert contents(model) == before
    config = model / "tokenizer.json"
    config.write_bytes(config.read_bytes() + b" ")
    assert f"{config} is damaged" in fitted.fails(*EXPORT, kind, "--output", model)
    config.unlink()
    assert f"{config} is damaged: it is missing" in fitted.fails(*EXPORT, kind, "--output", model)


def test_a_model_of_an_earlier_release_that_computed_otherwise_is_not_called_complete(fitted, tmp_path):
    made = (*EXPORT, "sentence-transformers", "--output", tmp_path / "model")
    fitted.json(*made)
    noted = json.loads((tmp_path / "model" / "export.json").read_text())
    facts = {name: value for name, value in noted["facts"].items() if name != "model"}
    write_record(tmp_path / "model" / "export.json", {**{n: noted[n] for n in ("files", "result")}, "facts": facts})
    assert f"{tmp_path / 'model'} is a folder that is already there" in fitted.fails(*made)


def test_vectors_are_made_again_from_the_same_run_only(fitted, tmp_path):
    path = tmp_path / "vectors.parquet"
    made = (*EXPORT, "parquet", "--output", path)
    first, before = fitted.json(*made), path.read_bytes()
    assert fitted.json(*made) == first
    assert path.read_bytes() == before
    for other in (("--dim", "64"), ("--split", "test"), ("--dims", "64")):
        assert f"{path} is already there" in fitted.fails(*made, *other)
    pl.read_parquet(path).write_parquet(path)  # somebody's own file now
    assert f"{path} is already there" in fitted.fails(*made)


def test_an_index_killed_between_its_two_files_is_finished(fitted, tmp_path):
    pytest.importorskip("faiss")
    index, table = tmp_path / "v5.faiss", tmp_path / "v5.faiss.rows.parquet"
    made = (*EXPORT, "faiss", "--output", index)
    fitted.json(*made)
    before = contents(tmp_path)
    index.unlink()  # the table has its name first
    fitted.json(*made)
    assert contents(tmp_path) == before
    index.write_bytes(b"mine")
    assert f"{table} is already there" in fitted.fails(*made)
    table.unlink()
    assert f"{index} is already there" in fitted.fails(*made)
    assert index.read_bytes() == b"mine"


def test_what_a_killed_export_left_is_removed(fitted, tmp_path):
    for name in (".vectors.parquet", ".model"):
        left = tmp_path / f"{name}.{'0' * 8}-1-{'0' * 12}.partial"
        left.mkdir() if name == ".model" else left.touch()
        os.utime(left, (0, 0))
    fitted.json(*EXPORT, "parquet", "--output", tmp_path / "vectors.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.parquet"]
