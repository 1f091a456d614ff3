"""Sweeps by several processes: the same results as one's, and a process that is lost costs its point alone."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pipeline.stages.sweep import Grid, LoadedFeatures, do_point, points
from pipeline.workspace.artifacts import Artifacts
from tests.pipeline.conftest import Pipeline
from tests.pipeline.stages.conftest import start

GRID = ("--methods", "v5,mrl", "--seeds", "1,2", "--heads", "paper,linear", "--lrs", "1e-4,1e-3", "--epochs", "1")
SWEEP = ("-m", "pipeline.cli", "sweep", *GRID)
ALL = 16


@pytest.fixture(scope="module")
def alone(embedded_once, tmp_path_factory) -> tuple[Pipeline, dict]:
    """The grid as one process does it."""
    root = tmp_path_factory.mktemp("alone")
    one = Pipeline(shutil.copytree(embedded_once, root / "artifacts"), root)
    return one, one.json("sweep", *GRID, "--devices", "cpu")


def files_of(pipeline: Pipeline) -> dict[str, tuple[bytes, bytes]]:
    """By run: the bytes of its head and of its scores."""
    heads = pipeline.artifacts.glob("runs/*/*/*/*/head.safetensors")
    return {
        path.parent.name: (path.read_bytes(), (path.parent / "scores.json").read_bytes())
        for path in heads
        if path.parent.name[0] != "."
    }


def table_of(swept: dict) -> pl.DataFrame:
    return pl.read_parquet(swept["output"]).drop("seconds")


def processes_of(parent: int) -> list[int]:
    """The processes that a sweep spawned."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except OSError:
        return []


def wait_for(condition) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.slow
def test_one_of_two_killed_costs_its_point_alone(embedded, alone):
    sweep = start(embedded, *SWEEP, "--devices", "cpu:2", "--json", OMP_NUM_THREADS="1")
    wait_for(lambda: files_of_runs(embedded) >= 4)
    child = processes_of(sweep.pid)[0]
    os.kill(child, signal.SIGSTOP)
    done = files_of_runs(embedded)
    wait_for(
        lambda: files_of_runs(embedded) >= done + 3
    )  # one that was between two points was given the next meanwhile
    os.kill(child, signal.SIGKILL)
    said, told = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, told
    assert f'"trained": {ALL}' in said
    assert "signal 9 (SIGKILL)" in told and "done again by others" in told
    assert files_of(embedded) == files_of(alone[0])


def files_of_runs(pipeline: Pipeline) -> int:
    return len(list(pipeline.artifacts.glob("runs/*/*/*/[!.]*/config.json")))


@pytest.mark.slow
def test_killed_as_a_whole_it_goes_on_and_writes_the_bits_of_one_process(embedded, alone):
    one, expected = alone
    sweep = start(embedded, *SWEEP, "--devices", "cpu:2", OMP_NUM_THREADS="1")
    wait_for(lambda: files_of_runs(embedded) >= 4)
    children = processes_of(sweep.pid)
    assert len(children) == 2
    sweep.kill()
    sweep.communicate()
    wait_for(lambda: not any(Path(f"/proc/{child}/cmdline").exists() for child in children))
    done = files_of_runs(embedded)
    assert 4 <= done < ALL
    swept = embedded.json("sweep", *GRID, "--devices", "cpu:2")
    assert [run["id"] for run in swept["runs"]] == [run["id"] for run in expected["runs"]]
    assert (len(swept["runs"]), swept["trained"]) == (ALL, ALL - done)
    assert files_of(embedded) == files_of(one)
    assert table_of(swept).equals(table_of(expected))
    again = start(embedded, *SWEEP, "--devices", "cpu:2", "--json", OMP_NUM_THREADS="1")
    spawned = []
    while again.poll() is None:
        spawned += processes_of(again.pid)
        time.sleep(0.005)
    assert '"trained": 0' in again.stdout.read()
    assert spawned == []


def test_what_is_done_needs_no_device(alone):
    one, expected = alone
    grid = Grid(methods=("v5",), seeds=(1, 2), heads=("paper",), lrs=(1e-4,), epochs=(1,))
    (point,) = points(grid)
    artifacts = Artifacts(one.artifacts)
    features = LoadedFeatures(artifacts).of(point)
    done = do_point(artifacts, point, "cuda:99", features)
    assert done.trained == frozenset()
    assert {run.id for run in done.runs} < {run["id"] for run in expected["runs"]}
    with pytest.raises((RuntimeError, AssertionError)):  # which kind depends on how torch was built
        do_point(artifacts, replace(point, fit=replace(point.fit, seeds=(3,))), "cuda:99", features)


def test_a_device_that_is_not_there_is_told(pipeline):
    assert "no GPU" in pipeline.fails("sweep", "--devices", "cuda:0,cuda:1", CUDA_VISIBLE_DEVICES="")
