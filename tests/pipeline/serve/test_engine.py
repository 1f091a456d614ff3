"""The engine without its web server: a store that can no longer be written to stops nobody."""

import shutil
import time

import pytest

from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.runs import all_runs

engine = pytest.importorskip("pipeline.serve.engine")


def test_a_store_that_went_away_keeps_nobody_waiting(fitted, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(engine, "_IDLE_SECONDS", 0.05)
    artifacts = Artifacts(shutil.copytree(fitted.artifacts, tmp_path / "artifacts"))
    run = next(run for run in all_runs(artifacts) if run.method == "v5")
    with engine.Engine(artifacts, run, "cpu") as running:
        for folder in artifacts.features.glob("minilm-*"):
            shutil.rmtree(folder)
        first = running.submit(["nobody asked this before"], 1000).result(60)
        time.sleep(1)  # it is idle, and writes
        again = running.submit(["nobody asked this before", "nor this"], 1000).result(60)
    assert (again.features[0] == first.features[0]).all()
    assert "features are not kept" in caplog.text
