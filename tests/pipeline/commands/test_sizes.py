"""Datasets of unusual sizes through the whole path: seven levels, very long texts, other scripts, very many classes."""

import csv
import json

import numpy as np
import pytest

from tests.pipeline.small_dataset import rows, write_csv

WORDS = {
    "a": ("how do i pay my {} bill", 2),
    "b": ("我想支付{}的账单，请告诉我怎么做", 2),
    "c": ("كيف أدفع فاتورة {} من فضلك", 2),
    "d": ("pay 💸 the {} bill 😀", 2),
    "e": ("a very long letter about {} and so on. " * 500, 500),
}


@pytest.mark.slow
def test_seven_levels_long_texts_and_other_scripts(pipeline, tmp_path):
    made = []
    for n in range(100):
        kind = "abcde"[n % 5]
        path = ["all", kind, f"{kind}{n % 2}", f"{kind}{n % 4}", f"{kind}{n % 4} {n // 20 % 2}"]
        path += [f"{path[-1]} x", f"{path[-1]} y"]
        depth = 7 if n % 3 else 3
        text = WORDS[kind][0].replace("{}", str(n))
        made.append([text[:20_000], *path[:depth], *[""] * (7 - depth), "test" if n % 5 == n // 20 else "train"])
    source = tmp_path / "seven.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", *(f"level{level}" for level in range(7)), "split"], *made])
    done = pipeline("run", source, "--backbone", "minilm", "--methods", "joint,lda", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "20 of 100 texts are longer than the" in done.stderr
    again = pipeline.json("score", "--method", "joint")
    for score in again["scores"]:
        assert [level["n"] for level in score["prefixes"][0]["levels"]][:3] == [20] * 3
    (page,) = (pipeline.artifacts / "reports").glob("*.html")
    text = page.read_text(encoding="utf-8")
    assert all(f"level{level}" in text for level in range(7)) and len(text) < 5_000_000


def test_one_validation_row_judges_nothing_and_stops_nothing(pipeline, tmp_path):
    small = [row for row in rows() if row[3] != "val"]
    source = write_csv(tmp_path / "one.csv", [(*small[0][:3], "val"), *small[1:]])
    pipeline.json("embed", source, "--backbone", "minilm")
    (run,) = pipeline.json("fit-head", "--method", "v5", "--epochs", "1")["runs"]
    assert run["best_epoch"] == 1
    assert {one["method"] for one in pipeline.json("score")["baselines"]} >= {"features", "logistic"}


@pytest.mark.slow
def test_five_thousand_classes_most_of_few_rows(pipeline, tmp_path):
    generator = np.random.default_rng(0)
    classes = np.concatenate([np.arange(5_000), generator.integers(5_000, size=1_500)])
    centres = generator.normal(size=(5_000, 32)) + 3 * generator.normal(size=(50, 32))[np.arange(5_000) % 50]
    vectors = centres[classes] + 0.5 * generator.normal(size=(len(classes), 32))
    np.save(tmp_path / "v.npy", vectors.astype(np.float32))
    lines = ["text,level0,level1,split"]
    for row, one in enumerate(classes):
        split = "test" if row >= 5_000 and row % 8 == 0 else "val" if row >= 5_000 and row % 8 == 1 else "train"
        lines.append(f"text {row},{one % 50},{one},{split}")
    source = tmp_path / "many.csv"
    source.write_text("\n".join(lines) + "\n")
    pipeline.json("embed", source, "--embeddings", tmp_path / "v.npy")
    pipeline.json("fit-head", "--method", "joint,lda", "--epochs", "1", "--head", "linear")
    score = pipeline.json("score")["scores"][0]
    assert score["prefixes"][-1]["levels"][1]["accuracy"] > 0.5
    assert pipeline.json("report")["path"]


def test_a_script_that_the_encoder_does_not_know_is_said(pipeline, tmp_path):
    source = tmp_path / "chinese.csv"
    rows = [f"我想查询一下第{n}个银行账户余额,{'ab'[n % 2]},{('train', 'val', 'test')[n % 3]}" for n in range(30)]
    source.write_text("\n".join(["text,level0,split", *rows]) + "\n", encoding="utf-8")
    done = pipeline("embed", source, "--backbone", "minilm", "--json")
    assert "of the tokens are unknown to minilm" in done.stderr
    found = json.loads(done.stdout)
    assert found["unknown_tokens"] > 0.05 and found["texts_cut"] == 0
    assert pipeline.json("embed", source, "--backbone", "minilm")["unknown_tokens"] is None


def test_texts_that_are_cut_are_said_when_they_are_encoded(fitted, tmp_path):
    source = tmp_path / "long.txt"
    source.write_text("a short text\n" + "word " * 3_000 + "\n")
    done = fitted("encode", source, "--method", "mrl", "--output", tmp_path / "out.parquet")
    assert done.returncode == 0
    assert "1 of 2 texts are longer than the" in done.stderr
