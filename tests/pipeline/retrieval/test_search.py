"""`pipeline search`: the nearest texts at every prefix, the query embedded as `encode` embeds it."""

from __future__ import annotations

import io
import shutil

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from pipeline.retrieval.semantic_zoom import KEPT, Hit, PrefixHits, zoom_table
from pipeline.stages.run_asked import first_run, matching, runs_asked
from pipeline.workspace.artifacts import Artifacts
from tests.pipeline.small_dataset import rows, write_csv

QUERY = "how do I move money to savings"
TRAIN = [row for row in rows() if row[3] == "train"]


@pytest.fixture(scope="module")
def found(fitted):
    return fitted.json("search", QUERY, "--method", "mrl", "--seed", "2", "--top", "4")


def test_the_nearest_at_each_prefix_are_those_of_brute_force_over_what_encode_writes(fitted, found, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join([QUERY, *(row[0] for row in TRAIN)]) + "\n", encoding="utf-8")
    options = ("--method", "mrl", "--seed", "2", "--output", tmp_path / "out.parquet")
    again = fitted.json("encode", tmp_path / "texts.txt", *options)
    assert again["computed"] == 0  # the query's features are kept as `encode` keeps them
    vectors = pl.read_parquet(tmp_path / "out.parquet")["embedding"].to_numpy().astype(np.float64)
    assert [prefix["dim"] for prefix in found["prefixes"]] == [64, 128, 192, 256]
    for prefix in found["prefixes"]:
        cut = vectors[:, : prefix["dim"]] / np.linalg.norm(vectors[:, : prefix["dim"]], axis=1, keepdims=True)
        cosines = cut[1:] @ cut[0]
        order = np.lexsort((np.arange(len(cosines)), -np.round(cosines * 2**24)))[:4]
        assert [hit["row"] for hit in prefix["results"]] == order.tolist()
        for rank, hit in enumerate(prefix["results"], start=1):
            text, domain, intent, _ = TRAIN[hit["row"]]
            assert (hit["rank"], hit["text"]) == (rank, text)
            assert hit["labels"] == {"level0": domain, "level1": intent}
            assert hit["similarity"] == pytest.approx(cosines[hit["row"]], abs=1e-6)


def test_one_prefix_can_be_asked_for(fitted, found):
    asked = fitted.json("search", QUERY, "--run", found["run"], "--top", "4", "--dim", "128")
    assert asked["prefixes"] == [prefix for prefix in found["prefixes"] if prefix["dim"] == 128]


def test_a_second_search_reads_the_kept_corpus_and_a_damaged_one_is_made_again(fitted, found):
    (kept,) = [path for path in fitted.artifacts.rglob(KEPT) if found["run"] in str(path)]
    written = kept.stat().st_mtime_ns
    options = ("search", QUERY, "--run", found["run"], "--top", "4")
    assert fitted.json(*options)["prefixes"] == found["prefixes"]
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(kept.read_bytes()[:1000])
    assert fitted.json(*options)["prefixes"] == found["prefixes"]
    assert kept.stat().st_size > 1000


def test_texts_that_changed_since_the_run_was_trained_are_searched_as_they_are_now(fitted, pipeline):
    """Two rows change places: what is kept of the old order must not be taken for the new."""
    shutil.copytree(fitted.artifacts, pipeline.artifacts)
    data = pipeline.cwd / "small.csv"
    table = rows()
    write_csv(data, table)
    pipeline.json("embed", data, "--backbone", "minilm")
    pipeline.json("fit-head", "--method", "lda")
    train = [i for i, row in enumerate(table) if row[3] == "train"]
    options = ("search", table[train[0]][0], "--method", "lda", "--top", "1")
    asked = [pipeline.json(*options)["prefixes"][-1]["results"][0]]
    run = pipeline.json(*options)["run"]
    table[train[0]], table[train[-1]] = table[train[-1]], table[train[0]]
    write_csv(data, table)
    asked.append(pipeline.json("search", options[1], "--run", run, "--top", "1")["prefixes"][-1]["results"][0])
    assert [hit["text"] for hit in asked] == [options[1], options[1]]
    assert [hit["row"] for hit in asked] == [0, len(train) - 1]


def test_a_person_sees_one_table_of_ranks_and_which_run_was_chosen(fitted):
    done = fitted("search", QUERY, "--top", "3", COLUMNS="100")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    for dim in (64, 128, 192, 256):
        assert f"{dim} dims: level0 money" in done.stdout
    (heading,) = [line.split() for line in lines if line.split()[:4] == ["64", "128", "192", "256"]]
    ranks = [line.split()[:4] for line in lines if all(word in "123-" for word in line.split()[:4]) and line.strip()]
    for column in range(4):
        assert sorted(row[column] for row in ranks if row[column] != "-") == ["1", "2", "3"]
    assert heading[4:] == ["text", "level0", ">", "level1"]
    assert "seed 1, of small-" in done.stderr
    assert "(--method, --seed, --run)" in done.stderr


def test_a_text_that_begins_with_a_dash_is_no_option(fitted):
    assert fitted.json("search", "-1 degrees", "--method", "v5", "--top", "2")["query"] == "-1 degrees"
    assert fitted.json("search", "--top", "2", "--method", "v5", "-- what is it")["query"] == "-- what is it"


def test_more_texts_than_there_are_gives_all_of_them(fitted):
    found = fitted.json("search", QUERY, "--method", "v5", "--top", "500")
    assert {len(prefix["results"]) for prefix in found["prefixes"]} == {len(TRAIN)}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("  ",), 1, "TEXT is empty"),
        ((QUERY, "--method", "joint"), 1, "there are: mrl seeds 1, 2; v5 seeds 1, 2"),
        ((QUERY, "--dataset", "nowhere"), 1, "no dataset embedded in"),
        ((QUERY, "--backbone", "e5-small"), 1, "no run was trained on small-"),
        ((QUERY, "--run", "nothing"), 1, "has an id that begins with 'nothing'"),
        ((QUERY, "--run", "a", "--seed", "1"), 2, "--run names a run by itself"),
        ((QUERY, "--top", "0"), 2, "--top"),
        ((QUERY, "--method", "mrl", "--dim", "100"), 1, "use one of 64, 128, 192, 256"),
    ],
)
def test_bad_input_is_said_in_two_lines(fitted, arguments, status, said):
    assert said in fitted.fails("search", *arguments, status=status)


@pytest.mark.parametrize("width", [80, 160])
def test_the_finest_label_is_wrapped_and_not_cut_and_long_ones_above_it_take_a_line(width):
    labels = (
        "diseases of the musculoskeletal system and connective tissue",
        "juvenile osteochondrosis of hip and pelvis",
    )
    found = PrefixHits(64, (Hit(0, 0.5, "coxa magna", labels),))
    console = Console(file=io.StringIO(), width=width)
    for shown in zoom_table("leg", [found], ("chapter", "category"), width):
        console.print(shown)
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= width
    words = printed.split()
    assert all(words.count(word) >= 2 for word in labels[1].split() if word != "and")  # in the title and in the row
    assert all(word in words for word in labels[0].split())
    assert printed.count("…") == 1
    row = printed.partition("coxa magna")[2].strip()
    assert len(row.splitlines()) <= 4


def test_of_several_seeds_the_lowest_is_taken(fitted, small_csv):
    artifacts = Artifacts(fitted.artifacts)
    runs = runs_asked(artifacts, None, None)
    assert runs_asked(artifacts, str(small_csv), "minilm") == runs_asked(artifacts, "small", None) == runs
    for seed, left in ((1, runs), (2, matching(runs, None, 2))):
        assert (first_run(left).method, first_run(left).seed) == ("v5", seed)
