"""What commands write: looked at before the work, never replaced unasked, whole or absent, told in one line."""

import contextlib
import json
import shutil
import subprocess

import polars as pl
import pytest

from pipeline.errors import PipelineError
from pipeline.workspace.outputs import check_kept
from tests.pipeline.conftest import Pipeline
from tests.pipeline.small_dataset import rows, write_csv


@pytest.fixture
def new_csv(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text('id,text,note\n01,how warm is lima,"a, b"\n02,"cook ""rice""",\n', encoding="utf-8")
    return path


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 200 kB."""
    place = tmp_path / "small-disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], check=False).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", place], check=True)


def test_encode_keeps_the_other_columns_as_they_are(fitted, new_csv, tmp_path):
    made = fitted.json("encode", new_csv, "--method", "v5", "--output", tmp_path / "a.parquet")
    added = ["embedding", "level0", "level0_confidence", "level1", "level1_confidence"]
    assert made["columns"] == ["id", "text", "note", *added]
    frame = pl.read_parquet(tmp_path / "a.parquet")
    assert frame.select("id", "text", "note").rows() == [
        ("01", "how warm is lima", "a, b"),
        ("02", 'cook "rice"', None),
    ]
    typed = tmp_path / "typed.parquet"
    frame.select(pl.Series("count", [1, 2]), body="text", tags=pl.Series([["x"], []])).write_parquet(typed)
    fitted.json("encode", typed, "--text", "body", "--method", "v5")
    kept = pl.read_parquet(tmp_path / "typed.parquet.encoded.parquet")
    assert kept.select("count", "body", "tags").equals(pl.read_parquet(typed))


def test_labels_that_the_input_brings_are_kept_beside_the_predicted(fitted, tmp_path):
    path = write_csv(tmp_path / "labelled.csv", rows()[:9])
    done = fitted("encode", path, "--method", "v5")
    assert done.returncode == 0, done.stderr
    assert "column level0 of labelled.csv is kept as level0_given" in done.stderr
    frame = pl.read_parquet(tmp_path / "labelled.csv.encoded.parquet")
    assert frame["level0_given"].to_list() == [row[1] for row in rows()[:9]]
    assert frame["embedding"].dtype == pl.Array(pl.Float32, 256)


@pytest.mark.parametrize("column", ["embedding", "level0_confidence"])
def test_a_column_called_like_one_that_is_added_is_refused_before_the_work(fitted, tmp_path, column):
    path = tmp_path / "taken.csv"
    path.write_text(f"text,{column}\none line,3\n")
    assert f"column {column} of {path}" in fitted.fails("encode", path, "--method", "v5")
    assert not (tmp_path / "taken.csv.encoded.parquet").exists()


def test_a_level_called_embedding_is_refused(pipeline, tmp_path, new_csv):
    path = write_csv(tmp_path / "own.csv", rows(), header="text,area,embedding,split")
    pipeline.json("embed", path, "--backbone", "minilm", "--levels", "area,embedding")
    pipeline.json("fit-head", "--method", "mrl", "--epochs", "1")
    assert "level embedding" in pipeline.fails("encode", new_csv)


def test_nothing_is_replaced_unasked_and_a_rerun_is_known_as_its_own(fitted, new_csv, tmp_path):
    output = tmp_path / "a.parquet"
    pl.DataFrame({"mine": [1]}).write_parquet(output)
    assert "--force" in fitted.fails("encode", new_csv, "--method", "v5", "--output", output)
    assert pl.read_parquet(output).columns == ["mine"]
    fitted.json("encode", new_csv, "--method", "v5", "--output", output, "--force")
    again = fitted.json("encode", new_csv, "--method", "v5", "--output", output)
    assert again["texts"] == 2
    assert "--force" in fitted.fails("encode", new_csv, "--method", "mrl", "--output", output)
    assert "--force" in fitted.fails("encode", new_csv, "--method", "v5", "--text", "id", "--output", output)
    assert "is what is read" in fitted.fails("encode", output, "--method", "v5", "--output", output, "--force")


@pytest.mark.parametrize("command", ["encode", "sweep", "score"])
def test_where_nothing_can_be_written_is_said_before_the_work(fitted, tmp_path, new_csv, command):
    (tmp_path / "a-file").write_text("")
    (tmp_path / "folder.parquet").mkdir()
    line = {
        "encode": ("encode", new_csv, "--method", "v5", "--output"),
        "sweep": ("sweep", "--methods", "v5", "--seeds", "97", "--epochs", "1", "--output"),
        "score": ("score", "--method", "v5", "--per-class"),
    }[command]
    for name, said in (
        ("a-file/x.parquet", "a-file"),
        (f"{'x' * 245}.parquet", "name too long"),
        ("folder.parquet", "is a folder"),
        ("/proc/x.parquet", "/proc/x.parquet"),
    ):
        message = fitted.fails(*line, tmp_path / name)
        assert said in message.lower(), message
    assert "97" not in [str(run["seed"]) for run in fitted.json("runs", "list")["runs"]]


def test_a_sweep_and_a_table_of_classes_replace_only_their_own(copy, tmp_path):
    for line in (
        ("sweep", "--methods", "v5", "--seeds", "1", "--epochs", "2", "--output"),
        ("score", "--method", "v5", "--per-class"),
    ):
        output = tmp_path / f"{line[0]}.parquet"
        output.write_text("mine")
        assert "--force" in copy.fails(*line, output)
        assert output.read_text() == "mine"
        for options in (("--force",), ()):
            done = copy(*line, output, *options)
            assert done.returncode == 0, done.stderr
        assert pl.read_parquet(output).height


def test_a_full_disk_keeps_no_score_but_shows_it(copy, full_disk):
    first = [copy.json("score"), copy.json("compare")]
    for path in [*copy.artifacts.glob("runs/*/*/*/*/answers-*"), *copy.artifacts.glob("runs/*/*/*/*/scores.json")]:
        path.unlink()
    subprocess.run(["mount", "-o", "remount,size=80m", full_disk], check=True)
    shutil.move(copy.artifacts / "runs", full_disk / "runs")
    (copy.artifacts / "runs").symlink_to(full_disk / "runs")
    with contextlib.suppress(OSError), (full_disk / "rest").open("wb", buffering=0) as file:
        while file.write(bytes(1 << 12)):
            pass
    for command, before in zip(("score", "compare"), first, strict=True):
        done = copy(command, "--json")
        assert json.loads(done.stdout) == before
        assert done.stderr.count("is not kept: No space left on device") == 1
    check_kept(full_disk / "reports" / "retrieval.json")
    assert not list(full_disk.rglob("*.partial"))


def test_a_full_disk_names_the_file_whatever_the_writing_library_says(copy, tmp_path, full_disk):
    many = tmp_path / "many.txt"
    many.write_text("\n".join(f"text number {i} about rice" for i in range(400)))
    message = copy.fails("encode", many, "--method", "v5", "--output", full_disk / "out.parquet")
    assert f"cannot write {full_disk / 'out.parquet'}: No space left on device" in message
    shutil.rmtree(copy.artifacts / "runs")
    (copy.artifacts / "runs").symlink_to(full_disk)
    message = copy.fails("fit-head", "--method", "v5", "--seeds", "5,6,7", "--head", "wide", "--epochs", "1")
    assert "No space left on device" in message
    assert str(copy.artifacts / "runs") in message
    assert not list(full_disk.rglob("*.partial"))


def test_a_run_is_advised_by_the_kept_scores_and_said(fitted, new_csv, tmp_path):
    scores = fitted.json("score")["scores"]
    mean = {
        method: sum(
            level["accuracy"]
            for score in scores
            if score["method"] == method
            for prefix in score["prefixes"]
            for level in prefix["levels"]
        )
        for method in ("v5", "mrl")
    }
    done = fitted("encode", new_csv, "--output", tmp_path / "b.parquet", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["run"]
    taken = {score["run"]: (score["method"], score["seed"]) for score in scores}[run]
    best = max(mean.values())
    assert mean[taken[0]] == pytest.approx(best)
    assert taken[1] == 1
    assert "also trained:" in done.stderr


def test_reproduce_looks_at_its_output_before_it_measures(fitted, tmp_path):
    (tmp_path / "file").touch()
    said = fitted.fails("reproduce", "--seeds", "1,2", "--epochs", "2", "--output", tmp_path / "file" / "claims.json")
    assert f"{tmp_path / 'file'} is a file, not a folder" in said
    assert not list(fitted.artifacts.rglob("lda"))  # which it fits first


def test_a_folder_where_a_result_is_kept_is_said_before_the_work(tmp_path):
    with pytest.raises(PipelineError, match="is a folder"):
        check_kept(tmp_path)


def test_read_only_artifacts_are_searched_scored_and_encoded_from(fitted, tmp_path):
    new_csv = tmp_path / "never-embedded.csv"
    new_csv.write_text("text\nwhere may nobody write\nhow warm is a read-only disk\n")
    place = tmp_path / "read-only"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        copy = Pipeline(shutil.copytree(fitted.artifacts, place / "artifacts"), tmp_path)
        for kept in [*copy.artifacts.rglob("scores.json"), *copy.artifacts.rglob("train-embeddings.npz")]:
            kept.unlink()
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        assert len(copy.json("score")["scores"]) == 4
        found = copy.json("search", "a text that was never embedded", "--method", "v5")
        assert len(found["prefixes"]) == 4
        done = copy("encode", new_csv, "--method", "v5", "--output", tmp_path / "out.parquet")
        assert done.returncode == 0, done.stderr
        assert "computed and not kept" in done.stderr
        done = copy("retrieve", "--queries", "10", "--engines", "flat", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["results"]
        assert done.stderr.count("is not kept") == 1
        fitted.json("encode", new_csv, "--method", "v5", "--output", tmp_path / "expected.parquet")
        made, expected = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("out", "expected"))
        assert made.equals(expected)
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_dataset_whose_file_has_a_name_of_240_characters_goes_the_whole_way(pipeline, tmp_path):
    path = write_csv(tmp_path / f"{'x' * 236}.csv", rows())
    assert pipeline.json("embed", path, "--backbone", "minilm")["computed"] > 0
    (run,) = pipeline.json("fit-head", "--method", "mrl", "--epochs", "1")["runs"]
    assert [score["run"] for score in pipeline.json("score", "--dataset", path)["scores"]] == [run["id"]]


def test_no_file_that_a_dataset_is_read_from_is_replaced_even_with_force(pipeline, tmp_path):
    table = rows()
    files = []
    for split in ("train", "val", "test"):
        path = tmp_path / f"{split}.parquet"
        pl.DataFrame(
            [row[:3] for row in table if row[3] == split], ["text", "level0", "level1"], orient="row"
        ).write_parquet(path)
        files += [f"--{split}", path]
    said = pipeline.fails("data", "convert", *files, "--output", tmp_path / "test.parquet", "--force")
    assert "is what is read" in said
    assert pl.read_parquet(tmp_path / "test.parquet").columns == ["text", "level0", "level1"]
