"""What a stranger does wrong in the first minute: the message names what is wrong, and what it says to do works."""

import shlex

import pytest

from tests.pipeline.small_dataset import rows, write_csv


def advised(said: str) -> list[str]:
    """The words of the command in the second line of an error, without `pipeline`."""
    command = said.splitlines()[1].partition("pipeline ")[2].split(" (all there is")[0]
    return shlex.split(command)


@pytest.mark.parametrize("typed", [("clinc", "icd10cm"), ("icd10cm", "small.csv"), ("small.csv", "icd10cm")])
def test_a_built_in_dataset_is_one_by_itself(pipeline, small_csv, typed):
    words = [str(small_csv) if word == "small.csv" else word for word in typed]
    said = pipeline.fails("embed", *words, "--backbone", "minilm")
    assert "are not files of one dataset" in said
    assert "one built-in dataset per command" in said


@pytest.mark.parametrize("command", ["run", "search", "fit-head", "export", "runs show", "data show"])
def test_a_command_without_what_it_needs_shows_how_it_is_called(pipeline, command):
    said = pipeline.fails(*command.split(), status=2)
    assert "Missing" in said
    assert f"for example: pipeline {command} " in said
    assert f"pipeline {command} --help" in said


def test_a_misspelt_command_and_a_misplaced_option_are_put_right(pipeline):
    assert "Did you mean 'score'?" in pipeline.fails("scor", status=2)
    assert "pipeline score --artifacts DIR" in pipeline.fails("--artifacts", "x", "score", status=2)


def test_levels_from_fine_to_coarse_are_turned(pipeline, small_csv):
    said = pipeline.fails("embed", small_csv, "--backbone", "minilm", "--levels", "level1,level0")
    assert "name the coarsest level first: --levels level0,level1" in said


def test_a_split_column_that_is_not_there_is_answered_by_those_that_are(pipeline, small_csv):
    said = pipeline.fails("embed", small_csv, "--backbone", "minilm", "--split", "fold")
    assert "'text', 'level0', 'level1', 'split'" in said
    assert "--split none" in said


def test_before_the_first_run_the_advice_trains_one(pipeline, small_csv):
    pipeline.json("embed", small_csv, "--backbone", "minilm")
    words = advised(pipeline.fails("report"))
    assert pipeline.json(*words, "--epochs", "1")["runs"]
    assert pipeline.json("score")["scores"]


def test_a_method_without_a_run_is_told_from_those_that_have_one(copy):
    said = copy.fails("score", "--method", "lda")
    assert "no run of lda was trained" in said
    assert "name one of these methods: v5, mrl" in said
    assert copy.json(*advised(said))["runs"]
    assert copy.json("score", "--method", "lda")["scores"]
    assert "--backbone minilm" in copy.fails("search", "hello", "--backbone", "nothing")


def test_labels_that_changed_since_are_said(pipeline, tmp_path):
    path = write_csv(tmp_path / "mine.csv", rows())
    pipeline.json("embed", path, "--backbone", "minilm")
    pipeline.json("fit-head", "--method", "lda")
    write_csv(path, [(text, top, f"any {leaf}", split) for text, top, leaf, split in rows()])
    said = pipeline.fails("score")
    assert "its texts or labels have changed since it was embedded" in said
    assert "texts or labels have changed since this run was trained" in pipeline("search", "hello").stderr
    assert pipeline.json(*advised(said), "--epochs", "1")["runs"]


def test_an_id_never_means_another_dataset(pipeline, tmp_path):
    path = write_csv(tmp_path / "mine.csv", rows())
    first = pipeline.json("embed", path, "--backbone", "minilm")["dataset"]
    write_csv(path, [(text, top, f"any {leaf}", split) for text, top, leaf, split in rows()])
    for command in (("fit-head", "--method", "lda"), ("score",), ("sweep", "--methods", "lda")):
        said = pipeline.fails(*command, "--datasets" if command[0] == "sweep" else "--dataset", first)
        assert f"{first} is not there any more: what it was loaded from is now mine-" in said
    assert "--dataset mine" in said
    assert pipeline.json("fit-head", "--method", "lda", "--dataset", "mine")["runs"][0]["dataset"] != first


def test_a_folder_in_a_files_place_is_said(copy, small_csv):
    (copy.artifacts / "current.json").unlink()
    (copy.artifacts / "current.json").mkdir()
    assert "a folder stands where this file belongs" in copy.fails("embed", small_csv)


def test_rows_are_said_to_be_counted_below_the_header(pipeline, tmp_path):
    path = write_csv(tmp_path / "mine.csv", [("", *rows()[0][1:]), *rows()[1:]])
    done = pipeline("data", "check", path)
    assert "row 1: the text is empty" in done.stderr
    assert "rows are counted from 1, below the header" in done.stderr
    said = pipeline.fails("embed", path, "--backbone", "minilm")
    assert "(rows are counted from 1, below the header)" in said
    few = write_csv(tmp_path / "few.csv", [(*rows()[0][:2], "", rows()[0][3]), *rows()[1:]])
    done = pipeline("data", "check", few)
    assert "1 of 108 rows has no label of level level1" in done.stderr
    assert "rows are counted" not in done.stderr  # no row is named


def test_what_was_understood_is_said_before_what_is_unusual_about_it(pipeline, tmp_path):
    table = "".join(f"request {i} of many,a{i % 3},b{i % 6 if i else 'x'}\n" for i in range(80))
    (tmp_path / "mine.csv").write_text("request,area,topic\n" + table)
    said = pipeline("data", "check", tmp_path / "mine.csv").stderr
    assert 0 <= said.index("labels are in columns") < said.index("warning: ")


def test_what_was_computed_and_not_trained_has_no_best_epoch(copy):
    shown = copy("fit-head", "--method", "lda").stdout
    assert "lda: computed in" in shown
    assert "; chosen: shrinkage" in shown
    assert "epoch" not in shown
    assert "best epoch" in copy("fit-head", "--method", "v5", "--seeds", "9", "--epochs", "1").stdout


def test_steerability_says_what_its_terms_are(fitted):
    assert "coarse gain (coarsest level, shortest minus full vector)" in " ".join(fitted("score").stdout.split())


def test_a_page_is_called_html(fitted, tmp_path):
    assert "does not end in .html" in fitted.fails("report", "--output", tmp_path / "page.pdf", status=2)
    assert not (tmp_path / "page.pdf").exists()


def test_a_dataset_that_is_none_is_told_from_those_embedded(fitted):
    said = fitted.fails("score", "--dataset", "smal")
    assert "no dataset and no file 'smal'" in said
    assert "name one embedded here: small-" in said


def test_a_limit_that_leaves_nothing_hides_no_warning(pipeline, tmp_path):
    path = write_csv(tmp_path / "mine.csv", [*rows(), ("a text of its own", "money", "alone", "train")])
    done = pipeline("data", "check", path, "--limit", "2")
    assert done.returncode == 1
    assert "a limit of 2 rows leaves" in done.stderr
    assert "warning: 1 class ('alone') of level level1 with a single training row" in done.stderr
