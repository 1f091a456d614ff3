"""Which run is taken where several would do."""

from pathlib import Path

from heads.methods import TRAINER
from pipeline.stages.run_asked import advised_run
from pipeline.workspace.runs import Run


def run(id_, method, trainer, seed=1):
    record = {"method": method, "head": "paper", "layer": 6, "hyperparameters": {"epochs": 5, "trainer": trainer}}
    return Run(Path("nowhere", id_), record, id_, method, seed, closed_form=False)


def test_what_an_earlier_release_trained_is_taken_only_where_nothing_newer_is():
    old, new, other = run("a", "v5", TRAINER - 1), run("b", "v5", TRAINER, seed=2), run("c", "mrl", TRAINER - 1)
    assert advised_run([old, new])[0] is new
    assert advised_run([old])[0] is old
    assert advised_run([old, other])[0] is old
