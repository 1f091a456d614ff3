"""Kill one of two nodes of a Ray cluster while it embeds, and look at what is left.

    python benchmarks/cache/kill_node.py  # 20,000 texts through MiniLM, about a minute and a half
    python benchmarks/cache/kill_node.py --rounds 10 --texts 2000 --commit-seconds 0.5

Two raylets on this machine stand for two nodes; `pipeline embed CORPUS --engine ray` runs on the first. As soon as half
of the rows are committed, the second raylet and every process below it get SIGKILL at once, as if its power had gone.
The command must succeed; then every text must have its row, each once after compaction, the verification must find
nothing, and the features must be those of a local run that nobody disturbed, to the packed path's tolerance in float16.
Ray notices a lost node by its own health checks, whose default is 15 s; `--patience` sets it for this cluster. A raylet
that is killed refuses the next check at once; one that only waits for a core has ten seconds to answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import cache
from pipeline.cost.measure import processor

WORDS = ["what", "is", "the", "balance", "of", "my", "savings", "account", "book", "a", "flight", "to", "oslo"]
TOLERANCE = 2e-3
FILES = 8


class Broken(AssertionError):
    """Something was lost or changed."""


def main() -> None:
    """Kill, check, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1, help="do it so many times, killing at other moments")
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument(
        "--commit-seconds", type=float, default=10.0, help="a shard every so many seconds, on every node"
    )
    parser.add_argument(
        "--patience", type=float, default=1.5, help="seconds of refused connections until a node is dead"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    texts = make_texts(arguments.texts)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="kn-", dir="/tmp") as folder:
        root = Path(folder)
        corpus = write_corpus(root / "corpus", texts)
        reference = root / "reference"
        began = time.perf_counter()
        undisturbed = cache.embed_missing(
            texts, cache.EmbedRequest(cache.resolve(arguments.backbone), reference, devices="cpu:2", dtype="float32")
        )
        print(f"undisturbed, local, cpu:2: {time.perf_counter() - began:.1f} s", flush=True)
        expected = cache.FeatureStore.open(undisturbed.stores[0].folder).gather(cache.text_keys(texts))
        for number in range(arguments.rounds):
            # the first at half, the others anywhere: before the first commit, in the middle, at the end
            share = 0.5 if number == 0 else random.Random(number).uniform(0.0, 0.95)
            seen = one_round(root / f"round-{number}", corpus, texts, expected, share, arguments)
            rounds.append(seen)
            print(", ".join(f"{name} {value}" for name, value in seen.items()), flush=True)
    report = {
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {name: version(name) for name in ("ray", "pyarrow", "torch")},
        "texts": arguments.texts,
        "backbone": arguments.backbone,
        "commit_seconds": arguments.commit_seconds,
        "rounds": rounds,
    }
    print(
        f"{len(rounds)} kills survived: {report['machine']}, ray {report['versions']['ray']}, n = {arguments.texts:,}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def make_texts(count: int) -> list[str]:
    """Texts of some ten words, all different."""
    generator = random.Random(0)
    return [" ".join(generator.choices(WORDS, k=generator.randint(4, 14))) + f" {i}" for i in range(count)]


def write_corpus(folder: Path, texts: list[str]) -> Path:
    """The texts in `FILES` Parquet files."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(texts)), FILES)):
        table = pa.table({"text": [texts[i] for i in part]})
        parquet.write_table(table, folder / f"part-{number}.parquet", row_group_size=512)
    return folder


def one_round(
    artifacts: Path, corpus: Path, texts: list[str], expected: Any, share: float, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Embed, kill when `share` of the rows are committed, check."""
    began = time.perf_counter()
    with two_nodes(arguments.patience, arguments.commit_seconds) as (address, second):
        started = time.perf_counter()
        command = [sys.executable, "-m", "pipeline.cli", "embed", str(corpus), "--engine", "ray", "--json"]
        options = ["--ray-address", address, "--backbone", arguments.backbone, "--dtype", "float32"]
        embedding = subprocess.Popen(
            [*command, *options, "--artifacts", str(artifacts)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            committed = wait_for(artifacts, int(share * len(texts)), embedding, second)
            killed = time.perf_counter()
            processes = kill_with_children(second)
            out, err = embedding.communicate(timeout=600)
        finally:
            embedding.kill()
        done = time.perf_counter()
        if embedding.returncode:
            raise Broken(f"exit status {embedding.returncode}: {err}")
    try:
        summary = json.loads(out)
    except ValueError:
        raise Broken(f"no JSON on stdout: {out!r}; on stderr: {err!r}") from None
    seen = {"committed at the kill": committed, "processes killed": processes} | check(summary, texts, expected)
    return seen | {
        "computed": summary["computed"],
        "until the kill": round(killed - started, 1),
        "from the kill to the end": round(done - killed, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


@contextlib.contextmanager
def two_nodes(patience: float, commit_seconds: float) -> Iterator[tuple[str, int]]:
    """A cluster of two raylets; yields its address and the process id of the second."""
    from cache.cluster.connection import import_ray

    utilities = import_ray("ray.cluster_utils")
    with tempfile.TemporaryDirectory(prefix="kr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        # Ray notes its latest cluster in a folder that it does not make, by default one for all clusters
        os.environ["RAY_TMPDIR"] = folder
        (Path(folder) / "ray").mkdir()
        os.environ.update(commit_often(Path(folder), commit_seconds))
        health = {
            "health_check_initial_delay_ms": 0,
            "health_check_period_ms": int(patience * 1000 / 3),
            # a killed raylet's socket refuses at once; one that only waits for a core must not pass for dead
            "health_check_timeout_ms": 10_000,
            "health_check_failure_threshold": 3,
        }
        common = {"num_cpus": 2, "object_store_memory": 128 << 20}
        head = {**common, "include_dashboard": False, "temp_dir": f"{folder}/ray", "_system_config": health}
        cluster = utilities.Cluster(initialize_head=True, head_node_args=head)
        try:
            second = cluster.add_node(**common, wait=True)
            yield cluster.address, second.all_processes["raylet"][0].process.pid
        finally:
            cluster.shutdown()


def commit_often(folder: Path, seconds: float) -> dict[str, str]:
    """An environment in which every Python process commits shards at this interval."""
    if seconds == 10.0:
        return {}
    code = f"import cache.store.writer; cache.store.writer.ShardWriter.__init__.__kwdefaults__['seconds'] = {seconds}\n"
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).resolve().parents[2])])}


def committed_rows(artifacts: Path) -> int:
    """Rows in committed shards."""
    from cache.store.shard import list_shards, read_header

    count = 0
    for store in artifacts.glob("features/*/backbone.json"):
        description = json.loads(store.read_text())
        known = {name: value for name, value in description.items() if name not in ("store_version", "digest")}
        count += sum(read_header(path, known).rows for path in list_shards(store.parent))
    return count


def wait_for(artifacts: Path, rows: int, embedding: subprocess.Popen[str], second: int) -> int:
    """Wait until so many rows are committed and the second node computes; return how many are."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        if embedding.poll() is not None:
            raise Broken(f"it ended before it could be killed: {embedding.communicate()}")
        if computes(second) and (count := committed_rows(artifacts)) >= rows:
            return count
        time.sleep(0.05)
    raise Broken("it never came so far")


def computes(raylet: int) -> bool:
    """Whether an embedder runs below a raylet."""
    return any("Embedder" in name_of(process) for process in descendants(raylet))


def name_of(process: int) -> str:
    """What a process calls itself."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text(errors="replace")
    return ""


def descendants(process: int) -> list[int]:
    """The processes below one, itself first."""
    found = [process]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def kill_with_children(process: int) -> int:
    """SIGKILL to a process and everything below it, stopped first so that none notices another's end."""
    ending = descendants(process)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for one in ending:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)
    return len(ending)


def check(summary: dict[str, Any], texts: list[str], expected: Any) -> dict[str, Any]:
    """Check that every text is stored, once, undamaged and right."""
    folder = Path(summary["store"])
    if summary["texts"] != len(texts) or summary["computed"] + summary["reused"] != len(texts):
        raise Broken(f"the count is wrong: {summary}")
    rows = sum(shard.rows for shard in cache.FeatureStore.open(folder).shards)
    report = cache.verify(folder)
    if report.damage:
        raise Broken(f"verify finds {report}")
    cache.store.compact(folder)
    store = cache.FeatureStore.open(folder)
    once = sum(shard.rows for shard in store.shards)
    if once != len(texts) or len(store) != len(texts):
        raise Broken(f"{once} rows, {len(store)} keys after compaction, for {len(texts)} texts")
    found = store.gather(cache.text_keys(texts)).astype(np.float32)
    wanted = expected.astype(np.float32)
    error = float((np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max())
    if error > TOLERANCE:
        raise Broken(f"a feature is off by {error}")
    return {"rows before compaction": rows, "largest relative error": round(error, 6)}


if __name__ == "__main__":
    main()
