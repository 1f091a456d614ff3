"""Each bad input: exit 1 or 2, one line that says what is wrong, one that says what to do, and nothing lost."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import data
from pipeline.workspace.records import MARKS, marked
from tests.pipeline.small_dataset import rows, write_csv

ROOT = Path(__file__).resolve().parents[3]


def embed_fails(pipeline, path, *options, status=1, **environment):
    return pipeline.fails("embed", path, "--backbone", "minilm", *options, status=status, **environment)


def test_what_is_nearly_right_is_asked_for(pipeline, small_csv):
    asked = "did you mean {}?".format
    assert asked(small_csv) in embed_fails(pipeline, small_csv.with_suffix(".cvs"))
    assert asked("'level1'") in embed_fails(pipeline, small_csv, "--levels", "level0,levle1")
    said = pipeline.fails("run", small_csv, "--methods", "join,v5", status=2)
    assert asked("joint") in said


def test_a_missing_column_is_named(pipeline, tmp_path):
    path = write_csv(tmp_path / "a.csv", [r[1:] for r in rows()], header="level0,level1,split")
    assert "text" in embed_fails(pipeline, path)


def test_a_label_below_two_parents_offers_to_qualify(pipeline, tmp_path):
    path = write_csv(tmp_path / "a.csv", [*rows(), ("one more", "travel", "balance", "train")])
    message = embed_fails(pipeline, path)
    assert "balance" in message
    assert "--qualify-labels" in message
    assert pipeline.json("data", "check", path, "--qualify-labels")["rows"] == len(rows()) + 1


def test_a_row_without_a_finer_label_is_used_on_the_coarser_level_or_dropped(pipeline, tmp_path):
    path = write_csv(tmp_path / "a.csv", [*rows(), ("one more", "travel", "", "train")])
    found = pipeline.json("data", "check", path)
    assert found["rows"] == len(rows()) + 1
    (finding,) = found["findings"]
    assert (finding["check"], finding["severity"], finding["count"]) == ("uneven-depth", "warning", 1)
    assert "--drop-incomplete" in finding["remedy"]
    assert pipeline.json("data", "check", path, "--drop-incomplete")["rows"] == len(rows())


def test_an_unknown_backbone_offers_the_known(pipeline, small_csv):
    assert "minilm" in pipeline.fails("embed", small_csv, "--backbone", "minlm")


def test_missing_weights_say_what_works_offline(pipeline, small_csv):
    assert "minilm" in pipeline.fails("embed", small_csv, "--backbone", "bge-small", HF_HOME=str(pipeline.cwd / "hf"))


def test_an_unknown_method_preset_or_option_is_wrong_usage(pipeline):
    assert "v6" in pipeline.fails("fit-head", "--method", "v6", status=2)
    assert "papr" in pipeline.fails("fit-head", "--method", "v5", "--head", "papr", status=2)
    assert "--nothing" in pipeline.fails("embed", "clinc", "--nothing", status=2)


def test_fitting_before_embedding_says_so(pipeline):
    assert "pipeline run" in pipeline.fails("fit-head", "--method", "v5")


def test_a_run_is_not_scored_on_other_features(copy):
    config = next(copy.artifacts.glob("runs/*/*/v5/[!.]*/config.json"))
    other = json.loads(config.read_text())
    other["record"]["fingerprint"] = "0" * 32
    other["record"] = marked({name: value for name, value in other["record"].items() if name not in MARKS})
    config.write_text(json.dumps(other))
    assert "0" * 12 in copy.fails("score", config.parent.name)


def test_a_csv_that_is_not_utf8_is_read_as_windows_1252_which_is_said(pipeline, tmp_path):
    path = write_csv(tmp_path / "latin.csv", rows())
    path.write_bytes(path.read_bytes().replace(b"money", "mön".encode("cp1252")))
    done = pipeline("data", "check", path, "--json")
    assert "mön" in data.load(str(path)).hierarchy.classes[0]
    assert "read as Windows-1252 (another encoding: --encoding NAME)" in done.stderr
    assert "UTF-8" in embed_fails(pipeline, path, "--encoding", "utf-8")


def test_a_ten_megabyte_text_is_refused_by_row(pipeline, tmp_path):
    path = write_csv(tmp_path / "long.csv", [*rows(), ("word " * 2_000_000, "money", "balance", "train")])
    assert str(len(rows()) + 1) in embed_fails(pipeline, path)


def test_an_empty_split_is_named(pipeline, tmp_path):
    path = write_csv(tmp_path / "a.csv", [r for r in rows() if r[3] != "test"])
    assert "test" in embed_fails(pipeline, path)


def test_a_directory_for_a_file_is_named(pipeline, tmp_path):
    assert str(tmp_path) in embed_fails(pipeline, tmp_path)


def test_a_gpu_that_is_not_there_is_said(pipeline, small_csv):
    assert "cuda" in embed_fails(pipeline, small_csv, "--devices", "cuda", CUDA_VISIBLE_DEVICES="").lower()


@pytest.mark.parametrize("damage", ["truncate", "foreign"])
def test_a_damaged_shard_is_named_and_repaired(copy, damage, small_csv):
    shard = max(copy.artifacts.glob("features/*/shard-*.h5"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-1000] if damage == "truncate" else b"not HDF5 at all" * 100)
    assert shard.name in copy.fails("fit-head", "--method", "v5", "--seeds", "9")
    assert shard.name in copy("cache", "verify").stderr
    assert copy("cache", "verify", "--repair").returncode == 0
    assert copy.json("embed", small_csv, "--backbone", "minilm")["computed"] > 0
    assert copy.json("fit-head", "--method", "v5", "--seeds", "9", "--epochs", "1")["runs"]


def test_a_full_disk_is_said_and_nothing_is_lost(pipeline, small_csv, tmp_path):
    """The largest file allowed is smaller than a shard: writing fails as on a full disk."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY)); "
        "from pipeline.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "embed", small_csv, "--backbone", "minilm"],
        cwd=tmp_path,
        env={**os.environ, "PIPELINE_ARTIFACTS": str(pipeline.artifacts), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1
    assert not list(pipeline.artifacts.glob("features/*/*.h5"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert pipeline.json("embed", small_csv, "--backbone", "minilm")["computed"] > 0


def test_a_second_signal_ends_at_once_what_an_interrupted_command_still_waits_for():
    code = """
import atexit, signal, sys, time
from pipeline import cli
signal.signal(signal.SIGINT, signal.default_int_handler)
def main(**_):
    signal.raise_signal(signal.SIGTERM)
def wait():
    print("waits", flush=True)
    time.sleep(60)
cli.cli.main = main
atexit.register(wait)
cli.main()
"""
    command = [sys.executable, "-c", code]
    for second in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "waits\n"
            process.send_signal(second)
            _, said = process.communicate(timeout=30)
        assert process.returncode == -second
        assert [line.split(":")[0].strip() for line in said.split("\n") if line] == ["error", "do"]
