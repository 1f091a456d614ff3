"""The Ray engine against the local one, on a cluster of this machine: equal features, nothing twice, errors named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import CacheError, EmbedRequest, FeatureStore, embed_missing, resolve, text_keys, verify
from cache.cluster import connected, embed_on_cluster, open_corpus
from cache.cluster.actor import Embedder, on_this_node
from cache.cluster.connection import Node
from cache.cluster.engine import LEAST_TEXTS, MOST_TEXTS, ActorPool, batch_size
from cache.plan import make_plan
from cache.store import compact
from cache.workers.worker import Job

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra [ray]")
FLOAT32 = {"dtype": "float32", "store_dtype": "float32", "devices": "cpu:2"}


@pytest.fixture(scope="module")
def cluster():
    """This process is connected to a cluster of two processors."""
    with connected():
        yield


@pytest.fixture(scope="module")
def qwen(checkpoint):
    return resolve(str(checkpoint("qwen3")))


def texts_of(n: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    return [" ".join(generator.choice(words, generator.integers(1, 9))) + f" {i}" for i in range(n)]


def write_parquet(path: Path, texts: list, **more: list) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"text": pa.array(texts, pa.string()), **more}), path, row_group_size=100)
    return path


def same_features(a, b, texts) -> bool:
    """Whether two reports have the same stores with the same rows, to the packed path's tolerance."""
    assert [(one.layer, one.fingerprint) for one in a.stores] == [(one.layer, one.fingerprint) for one in b.stores]
    for one, other in zip(a.stores, b.stores, strict=True):
        rows, others = (FeatureStore.open(store.folder).gather(text_keys(texts)) for store in (one, other))
        if (np.linalg.norm(rows - others, axis=1) > 1e-5 * np.linalg.norm(others, axis=1)).any():
            return False
    return True


@pytest.mark.slow
def test_features_counts_and_fingerprints_are_those_of_the_local_engine(cluster, qwen, tmp_path):
    texts = texts_of(1500)
    repeated = [*texts, *texts[:200]]
    local = embed_missing(repeated, EmbedRequest(qwen, tmp_path / "local", layers=(-1, -2), **FLOAT32))
    seen = []
    ray = embed_on_cluster(
        repeated, EmbedRequest(qwen, tmp_path / "ray", layers=(-1, -2), **FLOAT32), progress=seen.append
    )
    assert same_features(ray, local, texts)
    assert (ray.texts, ray.computed, ray.reused, ray.tokens) == (1700, 1500, 200, local.tokens)
    assert ray.dtype == "float32"
    assert re.fullmatch("(1 actor|2 actors) on 1 node", ray.device)  # one may have done all before the other was there
    assert set(ray.stages) == set(local.stages)
    assert (seen[-1].done, seen[-1].total, seen[-1].stage) == (1700, 1700, "done")
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)

    again = embed_on_cluster(repeated, EmbedRequest(qwen, tmp_path / "ray", layers=(-1, -2), **FLOAT32))
    assert (again.computed, again.reused, again.device) == (0, 1700, "none")
    # what one engine stored the other finds
    more = embed_missing([*repeated, "one more"], EmbedRequest(qwen, tmp_path / "ray", layers=(-1, -2), **FLOAT32))
    assert more.computed == 1


@pytest.mark.slow
def test_a_corpus_in_files_is_read_whole_and_only_what_is_missing_is_computed(cluster, qwen, tmp_path):
    texts = texts_of(900)
    write_parquet(tmp_path / "corpus" / "a.parquet", texts[:500])
    write_parquet(tmp_path / "corpus" / "deeper" / "b.parquet", texts[500:] + texts[:50])
    write_parquet(tmp_path / "corpus" / "_hidden" / "c.parquet", ["not to be read"])
    store = tmp_path / "store"
    embed_missing(texts[:300], EmbedRequest(qwen, store, **FLOAT32))
    corpus = open_corpus(str(tmp_path / "corpus"))
    report = embed_on_cluster(corpus, EmbedRequest(qwen, store, **FLOAT32))
    assert corpus.rows == report.texts == 950
    # 50 texts of the second file repeat some that were stored before; none that another piece computes
    assert (report.computed, report.reused) == (600, 350)
    local = embed_missing(texts, EmbedRequest(qwen, tmp_path / "local", **FLOAT32))
    assert same_features(report, local, texts)
    assert not verify(report.stores[0].folder).damage


@pytest.mark.slow
def test_a_text_of_two_pieces_may_be_stored_twice_and_is_once_after_compaction(cluster, qwen, tmp_path):
    texts = texts_of(600)
    write_parquet(tmp_path / "c" / "a.parquet", texts)
    write_parquet(tmp_path / "c" / "b.parquet", texts)
    report = embed_on_cluster(open_corpus(str(tmp_path / "c")), EmbedRequest(qwen, tmp_path / "store", **FLOAT32))
    assert report.texts == report.computed + report.reused == 1200
    folder = report.stores[0].folder
    assert sum(shard.rows for shard in FeatureStore.open(folder).shards) == report.computed >= 600
    compact(folder)
    assert sum(shard.rows for shard in FeatureStore.open(folder).shards) == len(FeatureStore.open(folder)) == 600


@pytest.mark.slow
def test_a_bad_text_is_named_by_file_and_row_and_ends_the_work(cluster, qwen, tmp_path):
    write_parquet(tmp_path / "c" / "a.parquet", texts_of(300))
    path = write_parquet(tmp_path / "c" / "b.parquet", [*texts_of(250, 1), None, "good"])
    with pytest.raises(CacheError) as caught:
        embed_on_cluster(open_corpus(str(tmp_path / "c")), EmbedRequest(qwen, tmp_path / "store", **FLOAT32))
    assert caught.value.problem.startswith(f"{path}, row 251: the text is NoneType, not a string")
    assert caught.value.remedy == "drop or fill it"


@pytest.mark.slow
def test_what_an_actor_raises_is_raised_here_once(cluster, checkpoint, tmp_path):
    """The weights are whole when the plan is made, and NaN: every actor would meet that."""
    import shutil

    import safetensors.torch

    folder = Path(shutil.copytree(checkpoint("bert"), tmp_path / "broken"))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    for name in weights:
        weights[name][...] = float("nan")
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    texts = ["first", "first", "first", *texts_of(50)]
    with pytest.raises(CacheError, match=r"text \d+ \('.*'\): its feature of layer 3 holds nan") as caught:
        embed_on_cluster(texts, EmbedRequest(resolve(str(folder)), tmp_path / "store", **FLOAT32))
    row, text = re.match(r"text (\d+) \('(.*)'\)", caught.value.problem).groups()
    assert texts[int(row)].startswith(text)  # its row in what was given, repeats counted


class DiesOfAText(Embedder):
    """An actor that is killed by whatever holds the poison."""

    def _compute(self, item):
        if any("poison" in text for text in item.texts):
            os._exit(1)
        return super()._compute(item)


@pytest.mark.slow
def test_a_batch_that_kills_its_actors_ends_the_work_by_name(cluster, qwen, tmp_path, monkeypatch):
    monkeypatch.setattr("cache.cluster.engine.Embedder", DiesOfAText)
    texts = [*texts_of(300), "poison"]
    with pytest.raises(CacheError, match=r"^3 actors failed with text \d+, .* in hand$") as caught:
        embed_on_cluster(texts, EmbedRequest(qwen, tmp_path, dtype="float32", devices="cpu"))
    assert "leave these texts out" in caught.value.remedy


def test_files_that_are_no_corpus_are_refused_by_name(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("not parquet")
    numbers = write_parquet(tmp_path / "n" / "numbers.parquet", ["a"], number=[1])
    cases = {
        str(tmp_path / "empty"): "holds no Parquet file",
        str(tmp_path / "absent.parquet"): "absent.parquet",
        str(tmp_path / "text.parquet"): "text.parquet: ",
        str(tmp_path / "*.nothing"): "holds no Parquet file",
    }
    for source, problem in cases.items():
        with pytest.raises(CacheError, match=problem):
            open_corpus(source)
    with pytest.raises(CacheError, match="column number holds int64, not text"):
        open_corpus(str(numbers), "number")
    with pytest.raises(CacheError, match="no column body; it has text, number"):
        open_corpus(str(numbers), "body")
    with pytest.raises(CacheError, match="has no rows"):
        open_corpus(str(write_parquet(tmp_path / "none.parquet", [])))


@given(st.integers(1, 10**10), st.integers(0, 1000))
def test_batches_are_many_for_every_actor_or_as_small_as_they_get(texts, actors):
    size = batch_size(texts, actors)
    assert LEAST_TEXTS <= size <= MOST_TEXTS
    assert size == LEAST_TEXTS or texts / size >= 7 * max(1, actors) or texts < 8 * max(1, actors) * LEAST_TEXTS


def test_actors_are_one_per_gpu_or_have_a_share_of_a_nodes_processors():
    one, two, gpu = Node("1", "a", 8, 0), Node("2", "b", 2, 0), Node("3", "c", 16, 2)

    def of(nodes, devices):
        pool = ActorPool.of(nodes, devices)
        return pool.size, pool.per_node, pool.device, pool.threads, pool.cpus, pool.gpus

    assert of([one], "auto") == (1, 1, "cpu", 8, 7, 0)  # one processor is left for reading
    assert of([one, two], "auto") == (2, 1, "cpu", 2, 1, 0)
    assert of([one], "cpu:2") == (2, 2, "cpu", 4, 3, 0)
    assert of([two], "cpu:2") == (2, 2, "cpu", 1, 0.5, 0)
    assert of([Node("4", "d", 1, 0)], "cpu") == (1, 1, "cpu", 1, 0, 0)
    assert of([one, gpu], "auto") == (2, 2, "cuda:0", None, 1, 1)
    assert of([Node("5", "e", 2, 2)], "all") == (2, 2, "cuda:0", None, 0, 1)
    assert of([one, gpu], "cpu")[:3] == (2, 1, "cpu")
    for devices, nodes in (("cuda", [one]), ("cuda:1", [gpu])):
        with pytest.raises(CacheError, match=f"devices {devices}"):
            ActorPool.of(nodes, devices)
    with pytest.raises(CacheError, match="no processor to compute on"):
        ActorPool.of([Node("6", "f", 0, 0)], "auto")


def test_a_cluster_that_is_not_there_and_one_that_is_meant_for_clients_are_refused(tmp_path):
    code = """
import sys
from cache import CacheError
from cache.cluster.connection import connected
try:
    with connected(sys.argv[1]): pass
except CacheError as error:
    print(error.problem)
"""
    for address, expected in (
        ("ray://127.0.0.1:10001", "not the address"),
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1: Connection refused"),
    ):
        done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=60)
        assert expected in done.stdout, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_standard_output_is_ours_until_the_cluster_is_left():
    """Ray's listener prints the first of what it is told, and shutting down what came again."""
    code = """
import threading
from cache.cluster.connection import connected, import_ray
def listen():
    for node in range(3):
        line = {"lines": [f"node {node} is lost"], "pid": "raylet", "is_err": False}
        import_ray("ray._private.worker").print_to_stdstream(line, ignore_prefix=False)
with connected():
    listener = threading.Thread(target=listen, name="ray_listen_error_messages")
    listener.start()
    listener.join()
    print("ours")
print("and ours")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "ours\nand ours\n"


def test_without_the_extra_one_line_names_it(tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise ImportError('no ray here')")
    code = """
from cache import CacheError
from cache.cluster.connection import import_ray
try:
    import_ray()
except CacheError as error:
    print(error.problem, error.remedy)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no ray here" in done.stdout
    assert "pip install 'ray[data]'" in done.stdout


def test_an_actor_refuses_weights_that_are_not_the_driver_s(checkpoint, qwen, tmp_path):
    plan = make_plan(EmbedRequest(qwen, tmp_path, dtype="float32"), lambda: ("cpu", "float32"))
    other = checkpoint("llama")
    with pytest.raises(CacheError, match="node far has another qwen3"):
        on_this_node(Job(replace(plan, folder=other, backbone=replace(qwen, source=str(other))), 1), "far")
    # not where the driver has it, but where its name says
    assert on_this_node(Job(replace(plan, folder=tmp_path / "absent"), 1), "far").plan.folder == plan.folder
    gone = replace(plan, folder=tmp_path / "gone", backbone=replace(qwen, source=str(tmp_path / "gone")))
    with pytest.raises(CacheError, match=r"node far: checkpoint folder .* is not there"):
        on_this_node(Job(gone, 1), "far")


@pytest.mark.slow
def test_a_node_with_a_disk_of_its_own_under_that_path_is_refused_by_name(cluster, tmp_path):
    """A second raylet that sees another file system where the artifacts lie: a mount namespace."""
    import ray

    from cache.cluster.connection import check_shared, living_nodes

    mine, shared = tmp_path / "mine", tmp_path / "shared"
    mine.mkdir()
    shared.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not allowed here")
    address = ray.get_runtime_context().gcs_address
    start = f"exec {sys.executable} -m ray.scripts.scripts start --address={address} --num-cpus=1 --block"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {mine} && {start}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    ) as node:
        try:
            until = time.monotonic() + 60
            while len(living_nodes()) < 2:
                assert node.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
            check_shared(shared)
            with pytest.raises(CacheError, match=f"node .* does not share {mine}: .* not there"):
                check_shared(mine)
            assert not [path for folder in (mine, shared) for path in folder.iterdir()]
        finally:
            node.terminate()


@pytest.mark.slow
def test_a_process_told_to_end_ends_as_it_would_without_ray():
    code = """
import os, signal, time
from cache.cluster.connection import connected
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    with connected():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
