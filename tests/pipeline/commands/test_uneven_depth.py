"""A dataset cut at random depths through every command."""

import numpy as np
import polars as pl
import pytest

from tests.pipeline.small_dataset import rows, write_csv


@pytest.mark.slow
def test_every_command_holds_on_a_set_cut_at_random_depths(pipeline, tmp_path):
    generator = np.random.default_rng(0)
    table = []
    for n, (text, domain, intent, split) in enumerate(rows()):
        depth = generator.integers(1, 4)
        path = (domain, intent, f"{intent} {n % 2}")
        table.append((text, *(path[:depth] + ("",) * (3 - depth)), split))
    source = write_csv(tmp_path / "cut.csv", table, "text,level0,level1,level2,split")
    pipeline.json("embed", source, "--backbone", "minilm")
    runs = pipeline.json("fit-head", "--method", "v5,mrl,joint,lda", "--epochs", "1", "--seeds", "1")["runs"]
    assert len(runs) == 4
    known = [sum(row[-1] == "test" and bool(row[level]) for row in table) for level in (1, 2, 3)]
    for score in pipeline.json("score", "--protocol", "all")["scores"]:
        for prefix in score["prefixes"]:
            assert [level["n"] for level in prefix["levels"]] == known
            assert all(0 <= level["accuracy"] <= 1 for level in prefix["levels"])
    assert pipeline.json("compare")["comparisons"]
    assert pipeline.json("cost", "--methods", "mrl", "--no-measure")["training"][0]["steps"] > 0
    for result in pipeline.json("retrieve", "--filter-dim", "64", "--methods", "joint,lda")["results"]:
        assert all(0 <= share <= 1 for share in result["precision_at_10"])
    new = tmp_path / "new.csv"
    new.write_text("text\nshow my savings balance\nbook me a flight to rome\n")
    out = tmp_path / "new.parquet"
    pipeline.json("encode", new, "--method", "joint", "--dim", "64", "--output", out)
    assert pl.read_parquet(out).height == 2
    whole = tmp_path / "all.parquet"
    pipeline.json("export", "--method", "joint", "--format", "parquet", "--output", whole)
    exported = pl.read_parquet(whole)
    assert exported["level2"].null_count() == sum(not row[3] for row in table)
    assert "level2" in open(pipeline.json("report")["path"], encoding="utf-8").read()
