"""Sweeps as typed, repeated and side by side; the backbone cannot be loaded in any of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

from tests.pipeline.conftest import Pipeline
from tests.pipeline.small_dataset import rows, write_csv
from tests.pipeline.stages.conftest import start

SMALL_GRID = ("--methods", "mrl", "--heads", "linear", "--epochs", "1")


@pytest.fixture(scope="module")
def no_backbone(tmp_path_factory) -> dict[str, str]:
    """An environment where the package that loads backbones cannot be imported."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "transformers").mkdir()
    (folder / "transformers" / "__init__.py").write_text('raise ImportError("the backbone was loaded")\n')
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


def runs_of(pipeline: Pipeline) -> list[Path]:
    """Folders of whole runs."""
    found = (path.parent for path in pipeline.artifacts.glob("runs/*/*/*/*/config.json"))
    return sorted(folder for folder in found if not folder.name.startswith("."))


def files_of(runs: list[Path]) -> dict[Path, tuple[int, bytes]]:
    """What a fit wrote, and when."""
    names = ("config.json", "head.safetensors", "history.parquet")
    return {run / name: ((run / name).stat().st_mtime_ns, (run / name).read_bytes()) for run in runs for name in names}


def test_a_changed_label_costs_no_embedding_and_that_dataset_s_runs_alone(embedded, tmp_path):
    """Two datasets of the texts that are embedded, under other names and other labels."""
    mine = write_csv(tmp_path / "mine.csv", rows())
    other = write_csv(tmp_path / "other.csv", [(text, f"z{d}", f"y{i}", split) for text, d, i, split in rows()])
    grid = (*SMALL_GRID, "--seeds", "1,2", "--datasets", f"{mine},{other}")
    first = embedded.json("sweep", *grid)
    assert (len(first["runs"]), first["trained"]) == (4, 4)
    before = files_of(runs_of(embedded))

    text, domain, intent, split = rows()[0]
    write_csv(mine, [(text, domain, "transfer" if intent == "balance" else "balance", split), *rows()[1:]])
    assert embedded.json("embed", mine, "--backbone", "minilm")["computed"] == 0
    second = embedded.json("sweep", *grid)
    assert (len(second["runs"]), second["trained"]) == (4, 2)
    new = {run["id"]: run for run in second["runs"] if run["id"] not in {one["id"] for one in first["runs"]}}
    assert len(new) == 2
    assert {run["dataset"].rsplit("-", 1)[0] for run in new.values()} == {"mine"}
    after = files_of(runs_of(embedded))
    assert {path: after[path] for path in before} == before


def test_a_schedule_is_an_axis_and_the_method_s_own_is_no_other_run(embedded, no_backbone):
    own = embedded.json("sweep", *SMALL_GRID, **no_backbone)
    swept = embedded.json("sweep", *SMALL_GRID, "--schedules", "constant,one-cycle")
    assert (len(swept["runs"]), swept["trained"]) == (2, 1)
    assert swept["runs"][0] == own["runs"][0]
    frame = pl.read_parquet(swept["output"])
    assert dict(frame.select("run", "schedule").unique().iter_rows()) == {
        run["id"]: schedule for run, schedule in zip(swept["runs"], ("constant", "one-cycle"), strict=True)
    }
    assert "one-cycle" in embedded.fails("sweep", *SMALL_GRID, "--schedules", "cosine")


def test_a_closed_form_is_one_run_whatever_the_settings_and_can_be_shown(embedded):
    grid = ("--methods", "lda", "--heads", "paper,linear", "--lrs", "1e-4,1e-3", "--seeds", "1,2")
    found = embedded.json("sweep", *grid)
    assert (len(found["runs"]), found["trained"]) == (1, 1)
    frame = pl.read_parquet(found["output"])
    assert frame.height == frame.unique(["run", "dim", "level"]).height == 4 * 2
    shown = embedded("runs", "show", found["runs"][0]["id"])
    assert shown.returncode == 0, shown.stderr
    assert "the epoch kept" not in shown.stdout


MEETING = """
import json, sys, time
from pathlib import Path
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import labelled_features
from pipeline.stages.fit import fit
from pipeline.stages.fit import FitRequest

artifacts, meeting, own = Artifacts(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]

def meet(progress):
    (meeting / own).touch()
    while len(list(meeting.iterdir())) < 2:
        time.sleep(0.01)

features = labelled_features(artifacts)
fitted = fit(artifacts, features, FitRequest("mrl", (1, 2), head="linear", epochs=1), progress=meet)
print(json.dumps([[run.id for run in fitted.runs], sorted(fitted.trained)]))
"""


@pytest.mark.slow
def test_of_two_processes_that_train_the_same_runs_both_succeed_and_one_s_stay(embedded, no_backbone, tmp_path):
    """Each waits, while it trains, until the other trains too."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    both = [start(embedded, "-c", MEETING, embedded.artifacts, meeting, name, **no_backbone) for name in "ab"]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    (runs, trained), other = (json.loads(out) for out, _ in said)
    assert other == [runs, trained]
    assert sorted(runs) == trained
    assert sorted(run.name for run in runs_of(embedded)) == sorted(runs)
    assert list(embedded.artifacts.rglob("*.partial")) == []
    assert len(embedded.json("score", **no_backbone)["scores"]) == 2
