"""Heads trained on two layers' features: `fit-head` says which is ahead on validation, from what each run recorded."""

from pathlib import Path

import polars as pl


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
    expected = f"layer {ahead} {means[ahead]:.1%} (n = 2), layer {behind} {means[behind]:.1%} (n = 2)"
    assert sentence.endswith(expected), sentence
    assert sentence.startswith("mrl, linear head")
    assert expected in pipeline("fit-head", *options).stdout
