"""CLINC150: the real one where it is at hand, and a made one of its form everywhere."""

import hashlib
import json
from dataclasses import replace

import pytest

from data import DataError, load, summarize
from data.sources import clinc


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Two files of the published form with made-up queries, under PIPELINE_DATA."""
    queries = {
        "oos_val": [["what is it all about", "oos"]],
        "val": [["queue it", "play"]],
        "train": [["pay this", "pay"], ["pay that", "pay"], ["play this", "play"], ["play that", "play"]],
        "oos_test": [["is it", "oos"], ["so it is", "oos"]],
        "test": [["pay up", "pay"]],
        "oos_train": [],
    }
    domains = {"money": ["pay"], "music": ["play"]}
    for name, file, content in (("QUERIES", clinc.QUERIES, queries), ("DOMAINS", clinc.DOMAINS, domains)):
        text = json.dumps(content).encode()
        (tmp_path / file.name).write_bytes(text)
        monkeypatch.setattr(clinc, name, replace(file, sha256=hashlib.sha256(text).hexdigest()))
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))


def test_a_file_of_its_form(made):
    dataset = load("clinc")
    assert dataset.levels == ("domain", "intent")
    assert dataset.frame.row(0) == ("pay this", "money", "pay", "train")
    assert dataset.frame["split"].to_list() == ["train"] * 4 + ["val", "test"]
    assert dataset.out_of_scope.rows() == [("what is it all about", "val"), ("is it", "test"), ("so it is", "test")]
    assert load("clinc").id == dataset.id


def test_without_the_files_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("PIPELINE_DATA", raising=False)
    monkeypatch.setattr(clinc, "QUERIES", replace(clinc.QUERIES, url="http://127.0.0.1:9/data_full.json"))
    with pytest.raises(DataError, match=r"data_full\.json of clinc is not here") as caught:
        load("clinc", folder=tmp_path)
    assert str(tmp_path / "clinc" / "data_full.json") in caught.value.remedy


def test_the_real_one(clinc_folder):
    dataset = load("clinc")
    assert dataset.levels == ("domain", "intent")
    assert [len(dataset.split_rows(split)) for split in ("train", "val", "test")] == [15_000, 3_000, 4_500]
    assert dataset.hierarchy.sizes == (10, 150)
    assert dataset.hierarchy.children(0).tolist() == [15] * 10
    assert dataset.out_of_scope["split"].value_counts().sort("split").rows() == [
        ("test", 1_000),
        ("train", 100),
        ("val", 100),
    ]
    assert set(dataset.out_of_scope.columns) == {"text", "split"}
    intents = dataset.hierarchy.classes[1]
    assert dataset.hierarchy.classes[0][dataset.hierarchy.parents[0][intents.index("pay_bill")]] == "banking"


def test_the_real_one_in_figures(clinc_folder):
    summary = summarize(load("clinc"))
    domain, intent = summary.levels
    assert domain.entropy == domain.conditional_entropy == pytest.approx(3.3219, abs=1e-4)
    assert intent.conditional_entropy == pytest.approx(3.9069, abs=1e-4)
    assert (domain.balance, intent.balance) == pytest.approx((1, 1))
    assert (summary.rows, summary.duplicates, summary.in_two_splits, summary.contradictions) == (22_500, 5, 5, 4)
    assert summary.out_of_scope == {"train": 100, "val": 100, "test": 1_000}


def test_the_real_one_limited(clinc_folder):
    dataset = load("clinc", limit=1_000)
    assert len(dataset) == 1_000
    assert dataset.hierarchy.sizes == (8, 50)
    assert {len(dataset.split_rows(split)) for split in ("train", "val", "test")} == {650, 150, 200}
    assert dataset.out_of_scope.height == 1_200
