"""The commands that the page prints make the same features and the same runs, whatever was set."""

import shlex

import polars as pl

from pipeline.report.collect import ReportData
from pipeline.report.provenance import commands
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import labelled_features, runs_of
from tests.pipeline.small_dataset import rows, write_csv


def test_they_say_files_number_format_and_what_the_data_chose(pipeline, tmp_path):
    table = rows()
    files = [write_csv(tmp_path / f"part{n}.csv", table[n::2]) for n in range(2)]
    first = pipeline.json("embed", *files, "--backbone", "minilm", "--store-dtype", "float32")
    made = [pipeline.json("fit-head", "--method", "joint", "--seeds", "1", *options)["runs"][0]["id"]
            for options in ((), ("--head", "paper", "--epochs", "2"))]  # fmt: skip
    assert len(set(made)) == 2
    artifacts = Artifacts(pipeline.artifacts)
    features = labelled_features(artifacts)
    found = ReportData(
        features=features, source=artifacts.current().dataset, runs=runs_of(artifacts, features), methods=("joint",),
        untrained=(), scores={}, entries={}, comparisons={}, cells=(), claims=(), histories=pl.DataFrame(), layers=(),
        retrieval=None, explorer=None,
    )  # fmt: skip
    embed, *fits, _ = [shlex.split(line)[1:] for line in commands(found)]
    again = pipeline.json(*embed)
    assert (again["dataset"], again["fingerprint"], again["computed"]) == (first["dataset"], first["fingerprint"], 0)
    assert sorted(run["id"] for words in fits for run in pipeline.json(*words)["runs"]) == sorted(made)
