"""The commands as typed: embed, fit-head, score, encode, run, and what looks after their files."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.stages.encode import features_of_texts
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.runs import runs_by_id
from tests.conftest import ENVIRONMENT
from tests.pipeline.small_dataset import rows, write_csv
from tests.pipeline.warm_process import ROOT


def test_a_second_embed_computes_nothing_and_one_new_row_computes_one(pipeline, tmp_path):
    path = write_csv(tmp_path / "a.csv", rows())
    first = pipeline.json("embed", path, "--backbone", "minilm")
    distinct = len({r[0] for r in rows()})
    assert (first["texts"], first["computed"]) == (len(rows()), distinct)
    again = pipeline.json("embed", path, "--backbone", "minilm")
    assert (again["computed"], again["dataset"], again["store"]) == (0, first["dataset"], first["store"])
    write_csv(path, [*rows(), ("is there a pool on the roof", "travel", "hotel", "train")])
    added = pipeline.json("embed", path, "--backbone", "minilm")
    assert added["computed"] == 1
    assert added["dataset"] != first["dataset"]


def test_fit_head_trains_each_run_once_and_a_changed_label_makes_new_runs(pipeline, tmp_path):
    path = write_csv(tmp_path / "a.csv", rows())
    pipeline.json("embed", path, "--backbone", "minilm")
    first = pipeline.json("fit-head", "--method", "mrl", "--seeds", "1,2", "--epochs", "1")["runs"]
    assert [run["seed"] for run in first] == [1, 2]
    weights = [open(f"{run['path']}/head.safetensors", "rb").read() for run in first]
    again = pipeline("fit-head", "--method", "mrl", "--seeds", "1,2", "--epochs", "1")
    assert "nothing to do" in again.stdout
    changed = [(t, d, "hotel" if t.startswith("book me") else i, s) for t, d, i, s in rows()]
    write_csv(path, changed)
    second = pipeline.json("fit-head", "--method", "mrl", "--seeds", "1", "--epochs", "1")["runs"]
    assert second[0]["id"] not in {run["id"] for run in first}
    assert [open(f"{run['path']}/head.safetensors", "rb").read() for run in first] == weights


def test_score_reports_every_prefix_and_level_of_every_run(fitted):
    scores = fitted.json("score", "--protocol", "all")["scores"]
    assert [(s["protocol"], s["method"], s["seed"]) for s in scores] == [
        (protocol, method, seed)
        for protocol in ("gallery", "leave-one-out")
        for method in ("v5", "mrl")
        for seed in (1, 2)
    ]
    for score in scores:
        assert [p["dim"] for p in score["prefixes"]] == [64, 128, 192, 256]
        for prefix in score["prefixes"]:
            assert [level["level"] for level in prefix["levels"]] == [0, 1]
            for level in prefix["levels"]:
                low, high = level["ci95"]
                assert 0 <= low <= level["accuracy"] <= high <= 1
        first, last = score["prefixes"][0]["levels"], score["prefixes"][-1]["levels"]
        coarse = first[0]["accuracy"] - last[0]["accuracy"]
        fine = last[-1]["accuracy"] - first[-1]["accuracy"]
        assert score["coarse_gain"] == pytest.approx(coarse)
        assert score["fine_gain"] == pytest.approx(fine)
        assert score["steerability"] == pytest.approx(coarse + fine)


@pytest.mark.parametrize("method", ["v5", "mrl"])
def test_encode_gives_the_path_of_the_tree_that_a_search_over_all_paths_finds(fitted, tmp_path, method):
    test = [row for row in rows() if row[3] == "test"]
    path = write_csv(tmp_path / "new.csv", [row[:1] for row in test], header="text")
    output = tmp_path / "new.parquet"
    made = fitted.json("encode", path, "--method", method, "--seed", "1", "--dim", "64", "--output", output)
    assert made["computed"] == 0
    frame = pl.read_parquet(output)
    vectors = frame["embedding"].to_numpy()
    assert vectors.shape == (len(test), 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    artifacts = Artifacts(fitted.artifacts)
    (run,) = runs_by_id(artifacts, [made["run"]])
    features, _ = features_of_texts(artifacts, run, [row[0] for row in test])
    head = run.load()
    coarse, fine = head.classify(features, dim=64)
    if not head.labelling.supervised[0]:
        coarse = np.ones_like(coarse)  # the head has no classifier of its own there
    classes, paths = run.record["classes"], sorted({row[1:3] for row in rows()})
    for i, row in enumerate(frame.iter_rows(named=True)):
        share = {(a, b): coarse[i, classes[0].index(a)] * fine[i, classes[1].index(b)] for a, b in paths}
        assert (row["level0"], row["level1"]) == max(share, key=share.get)
        total, above = sum(share.values()), [value for path, value in share.items() if path[0] == row["level0"]]
        assert row["level1_confidence"] == pytest.approx(max(share.values()) / total, abs=1e-5)
        assert row["level0_confidence"] == pytest.approx(sum(above) / total, abs=1e-5)
    scores = fitted.json("score", "--method", method)["scores"]
    (levels,) = [score["prefixes"][0]["levels"] for score in scores if score["run"] == made["run"]]
    for level, trained in zip(levels, head.labelling.supervised, strict=True):
        right = [
            found == row[1 + level["level"]] for found, row in zip(frame[f"level{level['level']}"], test, strict=True)
        ]
        assert level["classifier"] == (pytest.approx(np.mean(right)) if trained else None)


def test_encode_reads_plain_lines_and_takes_the_lowest_of_several_seeds(fitted, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text('how warm is lima in may\nשלום 🙂 "quoted"\n', encoding="utf-8")
    made = fitted.json("encode", path, "--method", "v5")
    assert (made["texts"], made["dim"]) == (2, 256)
    assert made["output"].endswith("lines.txt.encoded.parquet")
    assert pl.read_parquet(made["output"])["text"].to_list() == path.read_text().splitlines()
    assert {run["id"]: run["seed"] for run in fitted.json("runs", "list")["runs"]}[made["run"]] == 1
    fitted.fails("encode", path, "--method", "v5", "--output", tmp_path / "x.csv", status=2)
    fitted.fails("encode", path, "--run", made["run"], "--method", "mrl", status=2)


def test_run_goes_from_texts_to_a_recommendation(pipeline, small_csv):
    done = pipeline("run", small_csv, "--backbone", "minilm", "--methods", "v5,mrl", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    for expected in ("level0", "level1", "64 → 256", "dims: ", "Next:"):
        assert expected in done.stdout
    assert {run["method"] for run in pipeline.json("runs", "list")["runs"]} == {"v5", "mrl"}


def test_data_show_and_rows(pipeline, small_csv):
    shown = pipeline.json("data", "show", small_csv, "--backbone", "minilm")
    assert shown["rows"] == len(rows())
    assert shown["lengths"]["tokens"]["mean"] >= shown["lengths"]["words"]["mean"] + 2  # [CLS] and [SEP]
    printed = pipeline("data", "show", small_csv, "--rows").stdout
    assert [line["text"] for line in csv.DictReader(printed.splitlines())] == [row[0] for row in rows()]


def test_rows_left_out_are_left_out_everywhere_and_named(pipeline, tmp_path):
    table = [(t, d, "" if i in (4, 50) else f, s) for i, (t, d, f, s) in enumerate(rows())]
    path, vectors = write_csv(tmp_path / "gaps.csv", table), tmp_path / "mine.npy"
    np.save(vectors, np.random.default_rng(0).standard_normal((len(table) - 2, 16)))
    where = ("--embeddings", vectors, "--dataset", path)
    assert f"{len(table)} rows" in pipeline.fails("score", *where)
    scored = pipeline("score", *where, "--drop-incomplete")
    assert scored.returncode == 0, scored.stderr
    assert "2 rows without a label left out: 5, 51" in scored.stderr
    pipeline.json("embed", path, "--backbone", "minilm", "--drop-incomplete")
    shown = pipeline("data", "show", path, "--rows")
    assert len(list(csv.DictReader(shown.stdout.splitlines()))) == len(table) - 2
    assert "as it was embedded here: --drop-incomplete" in shown.stderr
    assert "left out: 5, 51" in shown.stderr
    assert pipeline("score", *where).stdout == scored.stdout


def test_labels_of_merged_cells_are_filled_in_when_asked(pipeline, tmp_path):
    written = list(rows())
    above = [("", "", "", ""), *written]
    table = [(t, d * (d != b[1]), f * (f != b[2]), s) for (t, d, f, s), b in zip(written, above, strict=False)]
    path = write_csv(tmp_path / "merged.csv", table)
    levels = ("--levels", "level0,level1")
    assert "are saved: --fill-down" in pipeline("data", "check", path, *levels).stderr
    done = pipeline("data", "check", path, *levels, "--fill-down")
    assert done.returncode == 0, done.stderr
    assert "empty cells of 'level0', 'level1' have the label of the row above" in done.stdout + done.stderr


def test_cache_list_counts_rows_and_runs_and_prune_keeps_what_is_used(fitted, tmp_path, small_csv):
    (store,) = fitted.json("cache", "list")["stores"]
    assert store["runs"] == 4
    assert fitted.json("cache", "prune", "--yes")["removed"] == []
    unused = type(fitted)(tmp_path / "artifacts", tmp_path)
    unused.json("embed", small_csv, "--backbone", "minilm")
    (store,) = unused.json("cache", "list")["stores"]
    assert (store["rows"], store["runs"]) == (len({row[0] for row in rows()}), 0)
    assert len(unused.json("cache", "prune", "--yes")["removed"]) == 1
    assert unused.json("cache", "list")["stores"] == []


def test_runs_list_and_show(fitted):
    listed = fitted.json("runs", "list")["runs"]
    assert len(listed) == 4
    shown = fitted.json("runs", "show", listed[0]["id"])
    assert len(shown["history"]) == 2
    assert shown["record"]["levels"] == ["level0", "level1"]
    printed = fitted("runs", "show", listed[0]["id"]).stdout
    for expected in ("3 level0 > 6 level1", "64, 128, 192, 256 dims", "epochs 2", "* the epoch kept"):
        assert expected in printed
    assert "{'" not in printed
    assert "['" not in printed


def test_a_mistyped_folder_is_not_called_verified(pipeline, fitted):
    assert str(pipeline.artifacts) in pipeline.fails("cache", "verify")
    pipeline.artifacts.mkdir()
    assert "no features" in pipeline.fails("cache", "verify")
    (store,) = fitted.json("cache", "list")["stores"]
    assert fitted.json("cache", "verify", store["store"])["rows"] == store["rows"]


def test_doctor_calls_an_extra_installed_only_if_all_of_it_is(pipeline):
    done = pipeline("doctor", "--json", without="vl_convert")
    found = {one["what"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["weights of minilm"]["ok"]
    assert found["[report]"]["ok"] is None
    assert "vl-convert-python" in found["[report]"]["remedy"]


@pytest.mark.parametrize(
    "command",
    ["run", "embed", "fit-head", "score", "encode", "retrieve", "search", "doctor", "data show", "cache list"],
)
def test_every_help_shows_an_example(pipeline, command):
    done = pipeline(*command.split(), "--help")
    assert done.returncode == 0
    assert f"pipeline {command}" in done.stdout.split("Example:")[1]


def test_compare_tests_the_difference_of_two_methods(fitted):
    rows = fitted.json("compare", "--protocol", "leave-one-out")["comparisons"]
    assert {row["metric"] for row in rows} >= {"accuracy", "steerability"}
    beside = {"features*", "centred*", "pca*"}  # the same in every pair, so that both seeds are compared with it
    assert {(row["a"], row["b"]) for row in rows} == {("v5", "mrl")} | {(m, b) for m in ("v5", "mrl") for b in beside}
    for row in rows:
        assert row["n"] == 2
        assert row["mean_difference"] == pytest.approx(row["mean_a"] - row["mean_b"])
        assert row["p_holm"] is None or row["p_holm"] >= row["p"]
    shown = fitted("compare")
    assert "mrl" in shown.stdout
    assert "│    128 │" not in shown.stdout  # only the two ends, which are read at a glance
    assert "--json has every prefix" in shown.stderr


def test_gallery_sizes_are_scored_by_origin(fitted):
    cells = fitted.json("score", "--gallery-size", "5,12", "--method", "v5")["scores"]
    assert {(cell["gallery"], cell["origin"]) for cell in cells} == {
        (size, origin) for size in (5, 12) for origin in ("train", "held-out")
    }


def test_untrained_baselines_stand_beside_every_score(fitted):
    found = fitted.json("score", "--protocol", "all")
    names = ("features", "centred", "pca")
    assert [(b["method"], b["protocol"], b["run"]) for b in found["baselines"]] == [
        *((name, "gallery", None) for name in (*names, "logistic")),
        *((name, "leave-one-out", None) for name in names),  # a classifier has no gallery to leave a text out of
    ]
    whole = [64, 128, 192, 256, 384]
    lengths = {
        "features": whole,
        "centred": whole,
        "pca": [64, 71],
        "logistic": [384],
    }  # 72 training texts have 71 components
    for baseline in found["baselines"]:
        assert [prefix["dim"] for prefix in baseline["prefixes"]] == lengths[baseline["method"]]
    assert "pca*" in fitted("score").stdout


def test_errors_are_shown_and_classes_written(fitted, tmp_path):
    path = tmp_path / "classes.parquet"
    shown = fitted("score", "--method", "v5", "--errors", "--per-class", path)
    assert shown.returncode == 0, shown.stderr
    assert "most frequent confusions" in shown.stdout
    frame = pl.read_parquet(path)
    whole = frame.filter((pl.col("method") == "v5") & (pl.col("dim") == 64) & (pl.col("seed") == 1))
    by = {name: part for (name,), part in whole.filter(pl.col("level") == "level1").group_by("by")}
    assert set(by["level0"]["class"]) == {"money", "travel", "kitchen"}
    assert by["level1"]["queries"].sum() == by["level0"]["queries"].sum() == 18
    (score, *_) = fitted.json("score", "--method", "v5")["scores"]
    accuracy = (by["level0"]["accuracy"] * by["level0"]["queries"]).sum() / 18
    assert accuracy == pytest.approx(score["prefixes"][0]["levels"][1]["accuracy"])
    assert score["errors"][0]["errors"] == round(18 * (1 - accuracy))


def test_stored_answers_are_read_again_and_damaged_ones_made_again(copy):
    before = copy.json("compare")["comparisons"]
    kept = sorted(copy.artifacts.rglob("answers-*.npz"))
    assert len([path for path in kept if "untrained" not in path.parts]) >= 4
    for place, path in enumerate(kept):
        content = bytearray(path.read_bytes())
        content[len(content) * (place + 1) // (len(kept) + 1)] ^= 0x55
        path.write_bytes(content if place else content[:100])
    assert copy.json("compare")["comparisons"] == before


def test_galleries_of_a_run_are_searched_once(copy):
    first = copy.json("score", "--gallery-size", "7", "--method", "v5")
    kept = {path: path.stat().st_mtime_ns for path in copy.artifacts.rglob("galleries-7-*.json")}
    assert len(kept) == 5  # two runs, three embeddings without training
    assert copy.json("score", "--gallery-size", "7", "--method", "v5") == first
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_reproduce_judges_every_claim(copy, tmp_path):
    written = tmp_path / "reproduce.json"
    call = ("reproduce", "--seeds", "1,2", "--epochs", "2", "--corpus-size", "1000", "--output", written)
    found = copy.json(*call)
    kept = json.loads(written.read_text())
    assert {name: kept[name] for name in found} == found
    assert kept["seeds"] == [1, 2]
    assert kept["head"] == "paper"
    assert kept["commit"] is None or len(kept["commit"].rstrip("+")) == 40
    assert str(copy.artifacts) not in written.read_text()
    claims = {c["id"]: c for c in found["claims"]}
    assert {row["origin"] for row in found["gallery_size"]} == {"train", "held-out"}
    assert {row["level"] for row in found["gallery_size"]} == {0, 1}
    kinds = {"reproduced", "order holds", "equal by construction", "does not hold"}
    assert {claim["verdict"].removesuffix(", only under the published protocol") for claim in claims.values()} <= kinds
    assert {"lda", "v5", "mrl", "v5 - mrl"} == claims["coarse-64"]["measured"].keys() - {"pca*"}
    assert {"lda", "v5", "mrl"} <= claims["fine-64"]["elsewhere"]["measured"].keys()
    assert "not measured here" not in {claim["verdict"] for claim in claims.values()}
    assert claims["search-cost"]["measured"] == {"64": 128.0, "128": 256.0, "256": 512.0}
    assert claims["two-stage"]["seeds"] == 2
    assert "72 real documents" in claims["two-stage"]["protocol"]
    assert "v5 - mrl, 1,000 documents, simulated" in claims["two-stage"]["measured"]
    page = Path(copy.json("report")["path"]).read_text("utf-8")
    assert "72 real documents" in page
    assert "take minutes to measure" not in page

    first = next(run for run in copy.json("runs", "list")["runs"] if run["method"] == "v5")
    shutil.rmtree(first["path"])
    without_it = Path(copy.json("report")["path"]).read_text("utf-8")
    assert "72 real documents" not in without_it, "claims on search are of runs that are no longer on the page"
    assert "take minutes to measure" in without_it


def test_a_sweep_does_only_what_is_left_and_a_second_does_nothing(pipeline, small_csv, tmp_path):
    pipeline.json("embed", small_csv, "--backbone", "minilm")
    pipeline.json("fit-head", "--method", "v5", "--seeds", "1,2", "--epochs", "1")
    grid = tmp_path / "grid.toml"
    grid.write_text('methods = ["v5", "mrl"]\nseeds = [1, 2]\nheads = ["paper", "linear"]\nepochs = [1]\n')
    swept = pipeline.json("sweep", "--grid", grid)
    assert (len(swept["runs"]), swept["trained"]) == (8, 6)
    frame = pl.read_parquet(swept["output"])
    found = frame.select("run", "method", "seed", "head", "dim", "level").rows()
    assert sorted(found) == sorted(
        (run["id"], run["method"], run["seed"], run["head"], dim, level)
        for run in swept["runs"]
        for dim in (64, 128, 192, 256)
        for level in (0, 1)
    )
    assert (frame["ci_low"] <= frame["accuracy"]).all() and (frame["accuracy"] <= frame["ci_high"]).all()
    again = pipeline.json("sweep", "--grid", grid)
    assert (again["runs"], again["trained"]) == (swept["runs"], 0)
    grid.write_text("learning = 3\n")
    assert "axis" in pipeline.fails("sweep", "--grid", grid)


def test_of_two_stores_of_a_backbone_the_last_embedded_is_taken(copy, small_csv):
    (first,) = copy.json("cache", "list")["stores"]
    other = "float32" if first["compute_dtype"] == "bfloat16" else "bfloat16"
    second = copy.json("embed", small_csv, "--backbone", "minilm", "--dtype", other)
    of_runs = copy("score", "--backbone", "minilm", "--json")
    assert {score["seed"] for score in json.loads(of_runs.stdout)["scores"]} == {1, 2}
    assert "of 2 stores of minilm the one that runs of small-" in of_runs.stderr
    (run,) = copy.json("fit-head", "--method", "v5", "--seeds", "3", "--epochs", "1")["runs"]
    assert [score["run"] for score in copy.json("score")["scores"]] == [run["id"]]
    assert second["store"] != first["store"]
    named = copy.json("score", "--backbone", first["store"].rsplit("/", 1)[1])["scores"]
    assert {score["seed"] for score in named} == {1, 2}


def test_a_dataset_is_found_again_with_its_options_and_its_runs_are_not_scored_on_another(pipeline, tmp_path):
    own = write_csv(tmp_path / "own.csv", rows(), header="text,area,topic,split")
    other = write_csv(tmp_path / "other.csv", [(t, f"z{d[::-1]}", f"y{i[::-1]}", s) for t, d, i, s in rows()])
    pipeline.json("embed", own, "--backbone", "minilm", "--levels", "area,topic")
    (run,) = pipeline.json("fit-head", "--method", "mrl", "--epochs", "1")["runs"]
    pipeline.json("embed", other, "--backbone", "minilm")
    assert run["dataset"] in pipeline.fails("score", run["id"])
    for name in (own, "own", run["dataset"]):
        assert [score["run"] for score in pipeline.json("score", "--dataset", name)["scores"]] == [run["id"]]


def test_what_a_killed_fit_leaves_is_no_run_and_the_next_fit_removes_it(copy):
    first, *others = copy.json("runs", "list")["runs"]
    run = Path(first["path"])
    left = run.with_name(f".{run.name}.00000000-1-0123456789ab.partial")  # of a process of another machine
    run.rename(left)
    os.utime(left, (time.time() - 7200,) * 2)
    runs = {run["id"] for run in others}
    assert {run["id"] for run in copy.json("runs", "list")["runs"]} == runs
    assert {score["run"] for score in copy.json("score")["scores"]} == runs
    copy.json("fit-head", "--method", first["method"], "--seeds", "3", "--epochs", "1")
    assert not left.exists()


def test_a_group_without_a_command_shows_its_help(pipeline):
    done = pipeline("cache")
    assert done.returncode == 2
    assert "verify" in done.stderr
    assert "error:" not in done.stderr


COMMANDS = """
import sys
from pathlib import Path
from pipeline.cli import main
for words in (["score"], ["compare"], ["fit-head", "--method", "v5", "--seeds", "77", "--epochs", "1"]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
"""


def test_only_embed_and_encode_load_the_backbone(copy, tmp_path):
    """With a transformers package that cannot be imported, all else still works."""
    (tmp_path / "transformers.py").write_text('raise ImportError("the backbone was loaded")\n')
    environment = {
        **ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "PIPELINE_ARTIFACTS": str(copy.artifacts),
    }
    command = [sys.executable, "-c", COMMANDS]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
