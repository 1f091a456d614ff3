"""Heads trained on two layers' features: which is ahead on validation is said, and neither is taken for the other."""

import shlex
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import PipelineError
from pipeline.report.collect import page_name, read_retrieval
from pipeline.report.page import is_page_of
from pipeline.stages.run_asked import runs_asked
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import labelled_features


def test_fit_head_says_which_layer_is_ahead_on_validation(pipeline, small_csv):
    pipeline.json("embed", small_csv, "--backbone", "minilm", "--layers", "-1,-4")
    options = ("--method", "mrl", "--seeds", "1,2", "--head", "linear", "--epochs", "1")
    first = pipeline.json("fit-head", *options)
    assert first["layers"] == []
    second = pipeline.json("fit-head", *options, "--layer", "-4")
    (sentence,) = second["layers"]
    means = {}
    for result in (first, second):
        scores = [pl.read_parquet(Path(run["path"]) / "history.parquet")["score"].max() / 2 for run in result["runs"]]
        means[result["runs"][0]["layer"]] = sum(scores) / 2
    assert set(means) == {6, 3}
    ahead, behind = sorted(means, key=lambda layer: (-means[layer], layer))
    expected = ", ".join(f"layer {layer} {means[layer] * 100:.1f} % (n = 2)" for layer in (ahead, behind))
    assert sentence.endswith(expected), sentence
    assert sentence.startswith("mrl, linear head")
    assert expected in pipeline("fit-head", *options).stdout


def test_what_is_of_one_layer_is_not_taken_for_another(pipeline, small_csv):
    pipeline.json("embed", small_csv, "--backbone", "minilm", "--layers", "-1,-4")
    fitting = ("fit-head", "--method", "mrl", "--head", "linear", "--epochs", "1")
    (run,) = pipeline.json(*fitting, "--layer", "-4")["runs"]
    (line,) = [line for line in pipeline("runs", "show", run["id"]).stdout.splitlines() if "not scored yet" in line]
    scored = pipeline(*shlex.split(line.partition(": pipeline ")[2]))
    assert scored.returncode == 0, scored.stderr

    artifacts = Artifacts(pipeline.artifacts)
    with pytest.raises(PipelineError, match="only on 3") as wrong:
        runs_asked(artifacts, None, None, -1)
    assert wrong.value.remedy.endswith("--layer 3")
    assert [found.id for found in runs_asked(artifacts, None, None, -4)] == [run["id"]]

    page = Path(pipeline.json("report", "--layer", "-4")["path"])
    features = {layer: labelled_features(artifacts, layer=layer) for layer in (-4, -1)}
    assert page.name == f"{page_name(features[-4])}.html" != f"{page_name(features[-1])}.html"
    assert [is_page_of(page, features[layer]) for layer in (-4, -1)] == [True, False]
    assert "--layer 3" in page.read_text("utf-8").partition("pipeline retrieve ")[2].splitlines()[0]

    pipeline.json("retrieve", "--layer", "-4", "--candidates", "10", "--queries", "10", "--engines", "flat")
    left = {layer: read_retrieval(artifacts, labelled_features(artifacts, layer=layer)) for layer in (-4, -1)}
    assert left[-4].layer == 3
    assert left[-1] is None

    named = ("--backbone", features[-4].store.folder.name)
    assert "holds layer 3, not layer 5" in pipeline.fails("score", *named, "--layer", "5")
    assert pipeline.json("score", *named, "--layer", "3")["scores"] == pipeline.json("score", *named)["scores"]
