"""What the Ray engine costs beside the local one, on the same cores of one machine, in one run.

    python benchmarks/cache/cluster.py --clinc CLINC_FOLDER --json cluster.json  # 22,500 texts, 5 minutes
    python benchmarks/cache/cluster.py --texts 3000 --repeats 1                   # made-up texts, 1 minute

MiniLM, float32. Local with one process and with two, Ray with one actor and with two, in turns, each into a store of
its own. Start-up, from the call to the first computed texts (torch, weights, processes; Ray's cluster stands apart),
does not count into the rate, which is of everything after: the last shard's writing, and the actors' end, included.
Every store's rows are compared with the first's. The last lines: a second call, which finds everything there.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import cache
from cache.cluster import connected, embed_on_cluster
from cache.devices import cores
from pipeline.cost.measure import processor

BASE = "local, cpu:2"


def main() -> None:
    """Measure in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clinc", type=Path, help="folder with CLINC's data_full.json")
    parser.add_argument("--texts", type=int, help="so many of them, or of made-up ones")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    texts = read_texts(arguments.clinc, arguments.texts)
    backbone = cache.resolve(arguments.backbone)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder, connected():
        cluster_seconds = time.perf_counter() - began
        rows = measure(texts, backbone, Path(folder), arguments.repeats)
    report = {
        "machine": f"{processor()}, {cores()} cores, {platform.system()}",
        "versions": {name: version(name) for name in ("ray", "torch", "pyarrow")},
        "backbone": backbone.name,
        "n": len(texts),
        "repeats": arguments.repeats,
        "cluster_start_seconds": cluster_seconds,
        "rows": rows,
    }
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def read_texts(clinc: Path | None, count: int | None) -> list[str]:
    """CLINC's distinct texts in a fixed order that is not the file's, or made-up ones of its length."""
    if clinc is None:
        generator = np.random.default_rng(0)
        words = np.array(["what", "is", "the", "balance", "of", "my", "account", "book", "a", "flight", "to", "oslo"])
        count = count or 3000
        return [" ".join(generator.choice(words, generator.integers(4, 14))) + f" {i}" for i in range(count)]
    records = json.loads((clinc / "data_full.json").read_text())
    texts = [text for split in ("train", "val", "test") for text, _ in records[split]]
    distinct = list(dict.fromkeys(texts))
    order = np.random.default_rng(0).permutation(len(distinct))
    return [distinct[i] for i in order][:count]


def measure(texts: list[str], backbone: Any, folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Every engine in turns, so that a slow minute hits all of them."""
    engines: dict[str, tuple[Callable[..., Any], str]] = {
        "local, cpu": (cache.embed_missing, "cpu"),
        BASE: (cache.embed_missing, "cpu:2"),
        "ray, 1 actor": (embed_on_cluster, "cpu"),
        "ray, 2 actors": (embed_on_cluster, "cpu:2"),
    }
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    reference = None
    for turn in range(repeats):
        for name, (embed, devices) in engines.items():
            root = folder / f"{turn}-{name}"
            once = timed(embed, texts, backbone, root, devices)
            found = features(root, texts)
            reference = found if reference is None else reference
            error = np.linalg.norm(found - reference, axis=1) / np.linalg.norm(reference, axis=1)
            again = timed(embed, texts, backbone, root, devices)
            seen[name].append({**once, "again_seconds": again["seconds"], "largest_error": float(error.max())})
            print(f"{turn + 1}/{repeats} {name}: {once['texts_per_second']:,.0f} texts/s", flush=True)
    return [summary(name, runs) for name, runs in seen.items()]


def timed(embed: Callable[..., Any], texts: list[str], backbone: Any, root: Path, devices: str) -> dict[str, float]:
    """One call: seconds until the first computed texts, and the rate of what came after."""
    first: list[tuple[float, int]] = []

    def progress(news: Any) -> None:
        if news.done and not first:
            first.append((time.perf_counter(), news.done))

    began = time.perf_counter()
    embed(texts, cache.EmbedRequest(backbone, root, dtype="float32", devices=devices), progress)
    ended = time.perf_counter()
    at, done = first[0]
    rate = (len(texts) - done) / (ended - at) if len(texts) > done else 0.0
    return {"start_up_seconds": at - began, "seconds": ended - began, "texts_per_second": rate}


def features(root: Path, texts: list[str]) -> Any:
    """The stored rows, in the order of the texts."""
    (description,) = root.glob("*/backbone.json")
    return cache.FeatureStore.open(description.parent).gather(cache.text_keys(texts)).astype(np.float32)


def summary(name: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over the turns; all rates."""
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "largest_error"}
    rates = [run["texts_per_second"] for run in runs]
    return {"engine": name, **medians, "rates": rates, "largest_error": max(run["largest_error"] for run in runs)}


def show(report: dict[str, Any]) -> None:
    """The table, ratios against the local engine with two processes."""
    base = next(row for row in report["rows"] if row["engine"] == BASE)
    print(f"\n{report['machine']}; {report['backbone']}, float32, n = {report['n']:,}, median of {report['repeats']}")
    print(f"ray {report['versions']['ray']}; its cluster starts in {report['cluster_start_seconds']:.1f} s\n")
    print(f"{'':16}{'texts/s':>10}{'of ' + BASE:>18}{'start-up, s':>13}{'all, s':>8}{'again, s':>10}{'error':>10}")
    for row in report["rows"]:
        share = row["texts_per_second"] / base["texts_per_second"]
        print(
            f"{row['engine']:16}{row['texts_per_second']:>10,.0f}{share:>18.2f}{row['start_up_seconds']:>13.1f}"
            f"{row['seconds']:>8.1f}{row['again_seconds']:>10.1f}{row['largest_error']:>10.1e}"
        )


if __name__ == "__main__":
    main()
