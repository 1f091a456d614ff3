"""The commands that `run` ends with: they parse as printed, keep what was set, and propose nothing just done."""

import shlex
from pathlib import Path

import click
import pytest

from data import load
from pipeline.cli import cli
from pipeline.commands.run import ends, next_steps, outvoted
from pipeline.evaluation.recommend import Answer
from pipeline.evaluation.statistics import Estimate
from pipeline.terminal.tables import ends_table
from tests.pipeline.conftest import Pipeline
from tests.pipeline.evaluation.predicted import identity, predicted

OPTIONS = {"head": "linear", "epochs": 3, "batch_size": None, "lr": 0.001, "schedule": None, "seeds": (42,)}
HOSTILE = "-1 degrees; rm -rf ~ \"'$(true)"


def steps(artifacts, methods, options, text="a text", page=True, seeded=None, advised="joint"):
    return next_steps(
        artifacts, methods, options, text, page=page, seeded=methods if seeded is None else seeded, advised=advised
    )


def words_of(lines):
    return [shlex.split(line, comments=True) for line in lines if line.startswith("  pipeline")]


@pytest.mark.parametrize("artifacts", ["artifacts", "/data/my artifacts"])
def test_every_line_is_a_command_that_parses_with_the_same_artifacts(monkeypatch, artifacts):
    monkeypatch.delenv("PIPELINE_ARTIFACTS", raising=False)
    found = words_of(steps(Path(artifacts), ("v5", "joint"), OPTIONS, HOSTILE))
    assert len(found) >= 5
    for _, name, *words in found:
        command = cli.get_command(click.Context(cli), name)
        context = command.make_context(name, list(words))
        assert context.params["artifacts"] == Path(artifacts)
    (search,) = [words for words in found if words[1] == "search"]
    assert HOSTILE in search
    (fit,) = [words for words in found if words[1] == "fit-head"]
    for option, value in (("--head", "linear"), ("--epochs", "3"), ("--lr", "0.001"), ("--method", "v5,joint")):
        assert fit[fit.index(option) + 1] == value


def test_a_head_that_was_asked_for_is_asked_for_again():
    """Without it `joint` would choose one, and train another run."""
    found = words_of(steps(Path("a"), ("joint",), {**OPTIONS, "head": "paper"}))
    (fit,) = [words for words in found if words[1] == "fit-head"]
    assert fit[fit.index("--head") + 1] == "paper"


def test_of_a_backbone_behind_a_server_the_vectors_are_exported_there_is_no_model():
    found = words_of(steps(Path("a"), ("v5",), {**OPTIONS, "backbone": "openai:small"}))
    (export,) = [words for words in found if words[1] == "export"]
    assert export[export.index("--format") + 1] == "parquet"


def test_a_long_text_of_many_lines_is_searched_for_by_its_beginning():
    text = "The screen stays black\n\n" + "after the update\t" * 40
    (line,) = [line for line in steps(Path("a"), ("v5",), OPTIONS, text) if line.startswith("  pipeline search")]
    assert "'The screen stays black after the update" in line
    assert "\n" not in line
    assert len(line) < 180


def test_what_was_just_done_is_not_proposed(monkeypatch):
    monkeypatch.setenv("PIPELINE_ARTIFACTS", "/elsewhere")
    options = {**OPTIONS, "seeds": (42, 123, 456)}
    names = [words[1] for words in words_of(steps(Path("/elsewhere"), ("v5",), options, page=False))]
    assert "fit-head" not in names
    assert "compare" not in names
    assert "report" not in names


def test_seeds_are_proposed_for_what_has_randomness_alone():
    found = words_of(steps(Path("a"), ("v5", "joint", "lda"), OPTIONS, seeded=("v5",)))
    (fit,) = [words for words in found if words[1] == "fit-head"]
    assert fit[fit.index("--method") + 1] == "v5"
    assert "fit-head" not in [words[1] for words in words_of(steps(Path("a"), ("lda",), OPTIONS, seeded=()))]


@pytest.mark.parametrize("advised", ["features*", "pca*"])
def test_an_untrained_answer_is_made_a_head_before_it_is_exported(advised):
    found = words_of(steps(Path("a"), ("v5", "lda"), OPTIONS, advised=advised))
    for words, command in zip(found, ("fit-head", "search", "export"), strict=False):
        assert words[1:4] == [command, "--method", advised[:-1]]
    trained = words_of(steps(Path("a"), ("v5", "lda"), OPTIONS, advised="lda"))
    assert "--method" not in trained[1]


def score(name, dims, accuracy):
    shares = [[accuracy, accuracy]] * len(dims)
    return predicted(shares, dims=dims).score(identity(name, untrained=name != "v5"))


SCORES = [score("v5", (64, 128, 256), 0.9)]
BASELINES = [
    score("features", (64, 128, 256, 384), 0.5),
    score("pca", (64, 71), 0.7),
    score("logistic", (384,), 0.8),
]


def answered(method, dim):
    return Answer(method, False, dim, 384, (0.9, 0.9), (Estimate(0.0, -0.01, 0.01, None, 1),) * 2, (dim, dim), None)


def test_the_small_table_has_the_ends_and_the_best_embedding_without_training():
    shown = [(one.identity.method, one.dims) for one in ends(SCORES, BASELINES, None)]
    assert shown == [("v5", (64, 256)), ("pca", (64,)), ("logistic", (384,))]


def test_the_small_table_has_the_method_and_the_prefix_of_the_answer():
    """Its figures could not be found in the table: `features*` was advised, and the table had `pca*` alone."""
    shown = ends(SCORES, BASELINES, answered("features*", 128))
    assert [one.dims for one in shown] == [(64, 256), (64, 128, 256), (384,)]
    table = ends_table(shown, ("a", "b"))
    assert list(table.columns[0].cells) == ["v5", "features*", "", "logistic*"]
    assert list(table.columns[1].cells) == ["64 → 256", "64 → 256", "128", "384"]
    (trained, *_) = ends(SCORES, BASELINES, answered("v5", 128))
    assert trained.dims == (64, 128, 256)


@pytest.mark.slow
def test_run_ends_with_the_answer_and_commands_that_work_as_printed(tmp_path, small_csv):
    pipeline = Pipeline(tmp_path / "artifacts", tmp_path)
    done = pipeline("run", small_csv, "--backbone", "minilm", "--methods", "v5,lda", "--epochs", "2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    places = [
        next(i for i, line in enumerate(lines) if line.startswith(start) or f"Use {start}" in line)
        for start in ("the features as they are (features*) at", "accuracy in %", "report: ", "Next:")
    ]
    assert places == sorted(places)
    commands = words_of(lines)
    assert [words[1] for words in commands] == [
        "fit-head",
        "search",
        "export",
        "score",
        "fit-head",
        "compare",
        "report",
    ]
    for words in commands:
        again = pipeline(*words[1:])
        assert again.returncode == 0, (words, again.stderr)
        assert again.stdout.strip(), words
    assert (tmp_path / "model").is_dir()
    assert "advised among 3 fitted methods" in pipeline("search", "cheap flights").stderr


def test_levels_with_fewer_texts_per_class_than_neighbours_are_said(tmp_path):
    splits = ["train"] * 8 + ["val", "test"]
    rows = "".join(f"text {n},c{n % 2},f{n % 40:02},{splits[n // 40 % 10]}\n" for n in range(160))
    path = tmp_path / "a.csv"
    path.write_text("text,level0,level1,split\n" + rows + "one,c0,f00,test\n")
    (said,) = outvoted(load(str(path)), Path("my folder"))
    assert "level1 4.0." in said and "level0" not in said
    assert "pipeline score --k 1 --artifacts 'my folder' asks" in said
    path.write_text("text,level0,split\n" + "".join(f"text {n},c{n % 2},train\n" for n in range(20)) + "x,c0,test\n")
    assert outvoted(load(str(path)), Path("artifacts")) == []
