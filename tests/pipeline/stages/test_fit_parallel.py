"""Several heads trained in processes at once: the bits of one after the other, and what a lost process costs."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.evaluation.embeddings import baselines_of, run_scorable
from pipeline.evaluation.score import PROTOCOLS, kept_predictions, score, stored_scores
from pipeline.stages.fit import FitRequest, fit, plan
from pipeline.stages.parallel import WORTH, fit_at_once, processes_for, unscored, untrained
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import labelled_features

METHODS, SEEDS = ("v5", "joint"), (7, 8)
REQUESTS = [FitRequest(method, SEEDS, epochs=2, batch_size=8) for method in METHODS]


@pytest.fixture
def at_hand(fitted, tmp_path):
    """Two artifacts folders with the same features and no runs."""
    folders = [shutil.copytree(fitted.artifacts, tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        shutil.rmtree(folder / "runs")
    return [(Artifacts(folder), labelled_features(Artifacts(folder))) for folder in folders]


def heads_of(artifacts: Artifacts) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in artifacts.runs.glob("*/*/*/[!.]*/head.safetensors")}


def test_heads_trained_at_once_are_those_trained_one_by_one_though_a_process_is_killed(at_hand):
    (one, features), (two, same) = at_hand
    for request in REQUESTS:
        fit(one, features, request, device="cpu")
    todo = untrained(two, same, REQUESTS)
    assert [training.request.method for training in todo] == ["v5", "v5", "joint", "joint"]  # v5 has more to do
    heard, killed = [], []

    def hear(share: float, what: str) -> None:
        heard.append((share, what))
        if not killed and what:
            killed.extend(processes_of_ours()[:1])
            os.kill(killed[0], signal.SIGKILL)

    notes = fit_at_once(two, same, todo, 2, hear)
    assert len(notes) == 1 and "SIGKILL" in notes[0]
    assert heads_of(two) == heads_of(one)
    assert heads_of(one).keys() == {training.run for training in todo}
    assert untrained(two, same, REQUESTS) == []
    assert heard[-1][0] <= 1 and any("v5 7" in what for _, what in heard)


def test_what_is_scored_beside_the_fits_has_the_scores_of_one_after_the_other(at_hand):
    (one, features), (two, same) = at_hand
    runs = [run for request in REQUESTS for run in fit(one, features, request, device="cpu").runs]
    todo = [*untrained(two, same, REQUESTS), *unscored(two, same, PROTOCOLS)]
    assert [job.name for job in todo[4:]] == ["features", "centred", "pca", "logistic"]
    assert fit_at_once(two, same, todo, 2, lambda share, what: None, PROTOCOLS) == ()
    assert unscored(two, same, PROTOCOLS) == []
    for scorable in (*(run_scorable(run, features) for run in runs), *baselines_of(one, features)):
        folder = two.root / scorable.folder.relative_to(one.root)
        asked = [name for name in PROTOCOLS if scorable.answers(name)]
        assert stored_scores(folder) == [score(scorable, name) for name in asked], scorable.identity
        assert all(kept_predictions(folder, name) is not None for name in asked)


def processes_of_ours() -> list[int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_what_cannot_be_fitted_ends_all_in_two_lines(at_hand):
    artifacts, features = at_hand[0]
    requests = [FitRequest(method, (1,), head="linear", lr=1e30, epochs=1) for method in METHODS]
    todo = untrained(artifacts, features, requests)
    with pytest.raises(PipelineError, match=r"^[^\n]*not finite[^\n]*$") as caught:
        fit_at_once(artifacts, features, todo, 2, lambda share, what: None)
    assert caught.value.remedy


def test_processes_are_started_where_they_are_repaid(at_hand, monkeypatch):
    artifacts, features = at_hand[0]
    todo = untrained(artifacts, features, REQUESTS)
    monkeypatch.setattr("pipeline.stages.parallel.choose_devices", lambda devices: ["cpu"])
    monkeypatch.setattr("pipeline.stages.parallel.threads_each", lambda processes: 3)
    assert processes_for(todo) == 1  # a few hundred texts
    long = [replace(training, work=WORTH) for training in todo]
    assert processes_for(long) == 3
    assert processes_for(long[:1]) == 1
    monkeypatch.setattr("pipeline.stages.parallel.choose_devices", lambda devices: ["cuda:0"])
    assert processes_for(long) == 1


def test_a_choice_is_kept_and_one_that_is_damaged_is_made_again(at_hand):
    artifacts, features = at_hand[0]
    request = FitRequest("joint", SEEDS, batch_size=64)
    made = plan(artifacts, features, request)
    (path,) = artifacts.runs.rglob("choice-*.json")
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b'"epochs": ', b'"epochs": 1'))
    assert plan(artifacts, features, request) == made
    assert path.read_bytes() == kept
