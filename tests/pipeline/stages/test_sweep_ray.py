"""`--engine ray` as typed: what the local engine stores and finds, a node killed, a sweep's every bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cache import CacheError, EmbedRequest, FeatureStore, embed_missing, text_keys
from cache.cluster import embed_on_cluster
from data import Description
from pipeline.errors import PipelineError
from pipeline.stages.embed import corpus_of
from pipeline.stages.fit import FitRequest
from pipeline.stages.sweep import Point
from pipeline.stages.sweep_ray import do_points_on_cluster, explained, fit_and_score
from pipeline.workspace.artifacts import DatasetSource
from tests.pipeline.conftest import Pipeline
from tests.pipeline.small_dataset import rows, write_csv

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra [ray]")
ROOT = Path(__file__).parents[3]
TEXTS = [text for text, *_ in rows()]


@pytest.fixture(scope="module")
def address():
    """A running cluster of two processors, as a colleague would have started it."""
    from cache.cluster.connection import connected, import_ray

    with connected():
        yield import_ray().get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def joining(address) -> dict[str, str]:
    """The variables with which another process joins the cluster: its address, and what Ray set when it started it."""
    return {**{name: value for name, value in os.environ.items() if name.startswith("RAY_")}, "RAY_ADDRESS": address}


@pytest.fixture(scope="module")
def embedded_once(address, tmp_path_factory) -> Pipeline:
    """The small dataset, embedded by the local engine."""
    root = tmp_path_factory.mktemp("embedded")
    made = Pipeline(root / "artifacts", root)
    made.json("embed", write_csv(root / "small.csv", rows()), "--backbone", "minilm", "--dtype", "float32")
    return made


@pytest.fixture
def local(embedded_once, tmp_path) -> Pipeline:
    """A copy of it, to fit on."""
    return Pipeline(shutil.copytree(embedded_once.artifacts, tmp_path / "local"), embedded_once.cwd)


def rows_of(store: str, texts: list[str]) -> np.ndarray:
    return FeatureStore.open(Path(store)).gather(text_keys(texts)).astype(np.float32)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the packed path's tolerance, rounded to float16."""
    return bool((np.linalg.norm(a - b, axis=1) <= 2e-3 * np.linalg.norm(b, axis=1)).all())


@pytest.mark.slow
def test_a_dataset_is_embedded_as_by_the_local_engine(embedded_once, joining, tmp_path):
    here = Pipeline(tmp_path / "artifacts", embedded_once.cwd)
    options = ("--backbone", "minilm", "--dtype", "float32", "--engine", "ray")
    ray = here.json("embed", "small.csv", *options, **joining)
    other = embedded_once.json("embed", "small.csv", "--backbone", "minilm")
    assert ray.keys() == other.keys()
    for name in ("dataset", "backbone", "fingerprint", "texts"):
        assert ray[name] == other[name]
    assert (ray["computed"], ray["reused"]) == (108, 0)
    assert ray["device"] == "1 actor on 1 node"
    assert close(rows_of(ray["store"], TEXTS), rows_of(other["store"], TEXTS))
    # it became what later commands take, and a cluster that is somebody else's is still there
    assert json.loads((here.artifacts / "current.json").read_text())["dataset_id"] == ray["dataset"]


@pytest.mark.slow
def test_a_list_with_a_bad_text_is_refused_as_the_local_engine_refuses_it(address, tmp_path):
    for texts in (["good", ""], ["good", None], ["good", "\ud800"]):
        said = []
        for embed, folder in ((embed_missing, "local"), (embed_on_cluster, "ray")):
            with pytest.raises(CacheError) as caught:
                embed(texts, EmbedRequest("minilm", tmp_path / folder))
            said.append((caught.value.problem, caught.value.remedy))
        assert said[0] == said[1]


@pytest.mark.slow
def test_parquet_without_labels_is_embedded_alone(joining, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    pl.DataFrame({"body": TEXTS[:60]}).write_parquet(folder / "a.parquet")
    pl.DataFrame({"body": TEXTS[60:]}).write_parquet(folder / "b.parquet")
    here, address = Pipeline(tmp_path / "artifacts", tmp_path), joining["RAY_ADDRESS"]
    ray = {**joining, "RAY_ADDRESS": ""}
    options = ("--text", "body", "--backbone", "minilm", "--engine", "ray", "--ray-address", address)
    done = here.json("embed", "corpus", *options, **ray)
    assert (done["texts"], done["computed"], done["reused"]) == (108, 108, 0)
    assert done["dataset"].startswith("corpus-")
    assert not (here.artifacts / "current.json").exists()
    said = here("embed", "corpus", *options, **ray)
    assert "108 texts, 0 computed, 108 reused" in said.stdout
    assert "ray" not in said.stderr.lower().replace(address, ""), said.stderr
    assert here("embed", "corpus", "--ray-address", address).returncode == 2


def test_what_has_labels_is_no_corpus_and_options_about_labels_are_refused(tmp_path, pipeline):
    folder = tmp_path / "corpus"
    folder.mkdir()
    pl.DataFrame({"text": ["a"]}).write_parquet(folder / "a.parquet")
    asked = (
        "embed",
        folder,
        "--backbone",
        "minilm",
        "--engine",
        "ray",
        "--ray-address",
        "nowhere:1",
        "--make-coarse",
        "2",
    )
    assert "--make-coarse derives a level of labels" in pipeline.fails(*asked, status=2)
    assert corpus_of(DatasetSource(str(folder))).rows == 1
    assert corpus_of(DatasetSource(str(folder / "*.parquet"))).rows == 1
    assert corpus_of(DatasetSource(str(folder), levels=("a", "b"))) is None
    assert corpus_of(DatasetSource("clinc")) is None
    with pytest.raises(PipelineError, match="--limit is about labels"):
        corpus_of(DatasetSource(str(folder), limit=5))
    with pytest.raises(PipelineError, match="--path-separator is about labels"):
        corpus_of(DatasetSource(str(folder), description=Description(path_separator="/")))
    with pytest.raises(PipelineError, match=r"named beside b\.parquet"):
        corpus_of(DatasetSource(str(folder / "a.parquet"), description=Description(files=("b.parquet",))))
    pl.DataFrame({"text": ["a"], "level0": ["b"]}).write_parquet(folder / "a.parquet")
    assert corpus_of(DatasetSource(str(folder / "a.parquet"))) is None
    with pytest.raises(PipelineError, match="is a folder whose files hold labels") as caught:
        corpus_of(DatasetSource(str(folder)))
    assert caught.value.remedy.endswith(f"'{folder}/*.parquet'")


def test_help_needs_no_ray(tmp_path):
    (tmp_path / "ray.py").write_text("raise RuntimeError('ray was imported')")
    (tmp_path / "pyarrow.py").write_text("raise RuntimeError('pyarrow was imported')")
    for command in ("embed", "sweep"):
        code = f"import sys; sys.argv = ['pipeline', '{command}', '--help']; from pipeline.cli import main; main()"
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONPATH": path})
        assert done.returncode == 0, done.stderr
        assert b"--engine" in done.stdout


GRID = ("--methods", "v5,mrl", "--seeds", "1,2", "--heads", "linear,paper", "--epochs", "1")


@pytest.mark.slow
def test_a_sweep_s_heads_and_scores_are_those_of_the_local_one_bit_for_bit(local, joining, tmp_path):
    cluster = Pipeline(shutil.copytree(local.artifacts, tmp_path / "cluster"), local.cwd)
    one = local.json("sweep", *GRID, OMP_NUM_THREADS="1")
    assert (
        cluster.json("sweep", "--methods", "mrl", *GRID[2:])["trained"] == 4
    )  # as far as a sweep came that was killed
    other = cluster.json("sweep", *GRID, "--engine", "ray", **joining)
    assert (len(other["runs"]), other["trained"]) == (8, 4)
    assert [run["id"] for run in other["runs"]] == [run["id"] for run in one["runs"]]
    for here, there in zip(one["runs"], other["runs"], strict=True):
        heads = [(Path(run["path"]) / "head.safetensors").read_bytes() for run in (here, there)]
        assert heads[0] == heads[1]
    frames = [pl.read_parquet(swept["output"]).drop("seconds") for swept in (one, other)]
    assert frames[0].equals(frames[1])

    again = cluster.json("sweep", *GRID, "--engine", "ray", "--ray-address", "127.0.0.1:1")  # nothing to do: not asked
    assert (again["runs"], again["trained"]) == (other["runs"], 0)


@pytest.mark.slow
def test_what_a_task_of_a_sweep_meets_comes_back_with_its_remedy(local):
    """Returned, not raised: not every exception survives the way."""
    point = Point(None, None, -1, FitRequest("mrl", (1,), "linear", 1, lr=1e30))
    problem, remedy = fit_and_score(str(local.artifacts), point, "cpu", 1)
    assert problem and remedy


@pytest.mark.slow
def test_a_task_that_fails_ends_the_others_on_a_cluster_that_stays(address, tmp_path, monkeypatch):
    """A stand-in for fitting, which would have ended by itself before anyone could see that it was ended."""

    def task(artifacts, point, device, threads):
        if point.dataset != "long":
            while not (tmp_path / "began").exists():
                time.sleep(0.05)
            if point.dataset == "defect":
                raise ValueError("it broke")
            return "what it met", "what to do"
        try:
            (tmp_path / "began").touch()
            for _ in range(600):
                time.sleep(0.1)
        finally:
            (tmp_path / "ended").touch()

    monkeypatch.setattr("pipeline.stages.sweep_ray.fit_and_score", task)
    for point, problem in (
        ("mistake", "what it met"),
        ("defect", "the sweep failed on the cluster: .*broke"),
    ):
        with pytest.raises(PipelineError, match=problem) as caught:
            both = [Point(name, None, -1, FitRequest("mrl", (1,))) for name in ("long", point)]
            do_points_on_cluster(tmp_path, both, "cpu", None)
        assert caught.value.remedy
        until = time.monotonic() + 20
        while not (tmp_path / "ended").exists():
            assert time.monotonic() < until, "it goes on"
            time.sleep(0.1)
        for name in ("began", "ended"):
            (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["NodeDiedError", "OutOfMemoryError", "WorkerCrashedError", "TaskUnschedulableError"])
def test_what_becomes_of_a_task_is_one_line_and_what_to_do(name):
    from ray import exceptions

    kind = getattr(exceptions, name)
    said = explained(kind() if name == "WorkerCrashedError" else kind("first\nthe reason"))
    assert "\n" not in str(said)
    assert str(said).startswith("a point of the sweep ")
    assert "run again to go on" in said.remedy


@pytest.mark.slow
def test_one_of_two_nodes_is_killed_and_nothing_is_lost(tmp_path):
    """The script that the README names, on few texts."""
    command = [sys.executable, ROOT / "benchmarks" / "cache" / "kill_node.py", "--json", tmp_path / "report.json"]
    options = ["--texts", "3000", "--commit-seconds", "0.3", "--patience", "1"]
    done = subprocess.run([*map(str, command), *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, (done.stdout, done.stderr)
    (seen,) = json.loads((tmp_path / "report.json").read_text())["rounds"]
    assert seen["processes killed"] > 2
    assert 1500 <= seen["committed at the kill"] < 3000 <= seen["rows before compaction"]


@pytest.mark.slow
def test_an_interrupt_keeps_what_was_computed_and_leaves_no_process(tmp_path):
    """On a cluster of its own: Ctrl-C, which a terminal sends to every process of the group."""
    pl.DataFrame({"text": [f"{text} number {i}" for i in range(200) for text in TEXTS]}).write_parquet(
        tmp_path / "c.parquet"
    )
    command = [sys.executable, "-m", "pipeline.cli", "embed", "c.parquet", "--engine", "ray", "--backbone", "minilm"]
    options = ["--artifacts", "artifacts", "--devices", "cpu:2", "--dtype", "float32"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TMPDIR": "/tmp", "RAY_ADDRESS": ""}
    embedding = subprocess.Popen(
        [*command, *options], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 180
    while not list(tmp_path.glob("artifacts/features/minilm-*/shard-*.h5")):  # a batch is committed
        assert embedding.poll() is None, embedding.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    os.killpg(embedding.pid, signal.SIGINT)
    _, err = embedding.communicate(timeout=60)
    assert embedding.returncode == 1, err
    assert "Traceback" not in err
    assert not _members(embedding.pid)
    (store,) = (tmp_path / "artifacts" / "features").glob("minilm-*/backbone.json")
    kept = len(FeatureStore.open(store.parent))
    assert 0 < kept < 200 * len(TEXTS)


def _members(session: int) -> list[str]:
    """What runs in a session, and below it."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append((folder / "cmdline").read_text(errors="replace"))
            except OSError:
                continue
    return found
