"""Kill an embedding process at random instants, again and again, and look at what it left behind.

    python benchmarks/cache/kill_store.py                                 # 200 kills of a fake backbone, 2 minutes
    python benchmarks/cache/kill_store.py --kills 5 --backbone minilm     # the real one: cache.embed_missing

After every SIGKILL the store must open, every committed row must read back equal to the reference, no committed row may
be gone, and the next run must compute just the texts that were not committed. The fake backbone makes features from the
text's hash at `--rate` texts a second and commits every 0.05 s, so that kills hit every stage of a commit; its rows are
compared bit for bit. Rows of a real backbone are compared with a run that nobody killed, to float16's resolution, since
what is left to compute is packed into other batches. A store that is complete is thrown away and begun anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import cache
from cache.store.atomic import stale_partials

DIM = 64
BATCH = 32
DESCRIPTION = {"backbone": "fake", "fingerprint": "f" * 64, "layer": -1, "hidden_size": DIM, "store_dtype": "float16"}


@dataclass
class Tally:
    """What was seen over all kills."""

    kills: int = 0
    before_first_row: int = 0
    after_completion: int = 0
    completed_stores: int = 0
    partials_seen: int = 0
    committed_at_kill: list[int] = field(default_factory=list)


class Broken(AssertionError):
    """The store lost or changed something."""


def main() -> None:
    """Kill, check, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=4000.0, help="texts per second of the fake backbone")
    parser.add_argument("--backbone", help="a real backbone's name instead of the fake one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--embed", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    texts = make_texts(arguments.texts)
    if arguments.embed:
        embed(texts, arguments.backbone, arguments.embed)
        return
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="kill-store-") as folder:
        if arguments.backbone:
            tally = kill_real(Path(folder), arguments.backbone, texts, arguments.kills, arguments.seed)
        else:
            tally = kill_fake(Path(folder), texts, arguments.kills, arguments.rate, arguments.seed)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "backbone": arguments.backbone or f"fake, {arguments.rate:.0f} texts/s",
        "texts": len(texts),
        "seconds": round(time.perf_counter() - start, 1),
        **{name: value for name, value in vars(tally).items() if name != "committed_at_kill"},
        "committed_at_kill_quartiles": np.percentile(tally.committed_at_kill, [0, 25, 50, 75, 100]).tolist(),
    }
    for name, value in report.items():
        print(f"{name}: {value}")
    print("every store opened, every committed row read back, every rerun computed the rest alone")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def make_texts(count: int) -> list[str]:
    """Return `count` distinct texts that begin alike, as real ones do."""
    return [f"a text about subject {number % 150}, the {number}th of its kind" for number in range(count)]


def fake_features(keys: np.ndarray) -> np.ndarray:
    """Return float16 [n, DIM] that follow from the keys alone, in float32."""
    words = keys.view("<u4").astype(np.uint64)[:, :, None]
    mixed = words * np.arange(1, DIM // 2, 2, dtype=np.uint64) >> np.uint64(7)
    return (mixed.reshape(len(keys), DIM) % np.uint64(4096)).astype(np.float32) / 256 - 8


def embed_fake(folder: Path, keys: np.ndarray, rate: float, report: int) -> None:
    """Compute what the store lacks, at `rate`; tell the number of missing texts first."""
    store = cache.FeatureStore.create(folder, DESCRIPTION)
    missing = keys[~store.contains(keys)]
    os.write(report, len(missing).to_bytes(4, "little"))
    with store.writer(seconds=0.05) as writer:
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            time.sleep(len(part) / rate)
            writer.append(part, fake_features(part))


def kill_fake(folder: Path, texts: Sequence[str], kills: int, rate: float, seed: int) -> Tally:
    """Kill forked processes; a fork starts in a millisecond, so that every kill hits the store's own work.

    On a machine that others load nothing may be committed before a kill: the next one then waits longer.
    """
    random = np.random.default_rng(seed)
    keys = cache.text_keys(texts)
    reference = fake_features(keys).astype(np.float16)
    tally, number, committed = Tally(), 0, 0
    usual = longest = 0.35 * len(texts) / rate
    while tally.kills < kills:
        store = folder / f"store-{number}"
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receive)
            embed_fake(store, keys, rate, send)
            os._exit(0)
        os.close(send)
        time.sleep(random.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        announced = os.read(receive, 4)
        os.close(receive)
        if announced and int.from_bytes(announced, "little") != len(keys) - committed:
            raise Broken(f"{int.from_bytes(announced, 'little')} to compute, though {committed} were committed")
        tally.kills += os.WIFSIGNALED(status)
        tally.after_completion += not os.WIFSIGNALED(status)
        before, committed = committed, check(store, keys, reference, committed, 0.0, tally)
        longest = usual if committed > before else 1.5 * longest
        if committed == len(keys):
            tally.completed_stores += 1
            number, committed = number + 1, 0
    return tally


def check(folder: Path, keys: np.ndarray, reference: np.ndarray, before: int, tolerance: float, tally: Tally) -> int:
    """Return how many rows are committed; raise if one is wrong or gone."""
    if not (folder / "backbone.json").exists():
        tally.before_first_row += 1
        return 0
    store = cache.FeatureStore.open(folder)
    there = store.contains(keys)
    found = store.gather(keys[there]).astype(np.float32)
    if not np.allclose(found, reference[there].astype(np.float32), rtol=0, atol=tolerance):
        raise Broken(f"{folder}: a committed row reads back differently")
    if int(there.sum()) < before:
        raise Broken(f"{folder}: {before} rows were committed, {int(there.sum())} are left")
    if damage := cache.verify(folder).damage:
        raise Broken(str(damage[0]))
    tally.before_first_row += not there.any()
    tally.partials_seen += len(stale_partials(folder))
    tally.committed_at_kill.append(int(there.sum()))
    return int(there.sum())


def embed(texts: Sequence[str], backbone: str, root: Path) -> None:
    """Embed with the real thing, and print what was computed as JSON."""
    report = cache.embed_missing(texts, cache.EmbedRequest(cache.resolve(backbone), root))
    print(json.dumps({"computed": report.computed, "reused": report.reused, "seconds": report.seconds}))


def kill_real(folder: Path, backbone: str, texts: Sequence[str], kills: int, seed: int) -> Tally:
    """Kill whole processes that embed with a real backbone."""
    random = np.random.default_rng(seed)
    whole, took = run_real(folder / "whole", backbone, len(texts), None)
    if whole is None:
        raise Broken("the run that nobody killed did not finish")
    unharmed = cache.FeatureStore.open(only_store(folder / "whole"))
    keys = cache.text_keys(texts, str(unharmed.description.get("prompt") or ""))
    reference = unharmed.gather(keys)
    tolerance = float(np.abs(reference.astype(np.float32)).max()) * 2e-3
    tally, number, committed = Tally(), 0, 0
    while tally.kills < kills:
        root = folder / f"root-{number}"
        report, _ = run_real(root, backbone, len(texts), random.uniform(0.2, 1.0) * took)
        if report and report["computed"] != len(keys) - committed:
            raise Broken(f"{report['computed']} computed, though {committed} were committed")
        tally.kills += report is None
        tally.after_completion += report is not None
        store = only_store(root)
        committed = check(store, keys, reference, committed, tolerance, tally) if store else 0
        if committed == len(keys):
            tally.completed_stores += 1
            number, committed = number + 1, 0
    return tally


def only_store(root: Path) -> Path | None:
    """Return the one store folder in `root`, if it is there yet."""
    return next((path.parent for path in root.glob("*/backbone.json")), None)


def run_real(root: Path, backbone: str, texts: int, seconds: float | None) -> tuple[dict[str, Any] | None, float]:
    """Embed in another process, killed after `seconds`; return its report (None if killed) and how long it ran."""
    command = [sys.executable, __file__, "--texts", str(texts), "--backbone", backbone, "--embed", str(root)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return None, time.perf_counter() - start
    if process.returncode:
        raise Broken(f"embedding ended with status {process.returncode}")
    return json.loads(output.splitlines()[-1]), time.perf_counter() - start


if __name__ == "__main__":
    main()
