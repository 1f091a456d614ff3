"""The feature store against memory copy, h5py's own indexing, np.load and a plain file write, all in one run.

    python benchmarks/cache/store.py  # 1,000,000 rows x 1,024 float16 (2 GB), 10 GB of disk, 5 minutes
    python benchmarks/cache/store.py --rows 100000    # a tenth of it

Every figure is the median of `--repeats`, the variants taking turns, with everything in the page cache: what the store
adds to memory, not what the disk takes. "MB extra" is the peak of anonymous memory (RssAnon, sampled every millisecond)
of a fresh process that opens the store and gathers, above what it had before and above the result. Writing is compared
with the same bytes in files as large as the shards, each flushed with fsync (the store flushes the folder besides).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache import FeatureStore
from cache.store.hashing import row_checksums
from pipeline.cost.measure import processor

READER = """
import sys
import h5py, numpy
from pathlib import Path
from cache import FeatureStore
keys, folder = numpy.load(sys.argv[2]), Path(sys.argv[1])
print("ready", flush=True)
input()
rows = FeatureStore.open(folder).gather(keys)
print("done", flush=True)
input()
"""
BATCH = 4096
SHARD = 64 << 20
DESCRIPTION = {"backbone": "benchmark", "fingerprint": "0" * 64, "layer": -1, "store_dtype": "float16"}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="store-benchmark-", dir=arguments.folder))
    try:
        report = measure(folder, arguments.rows, arguments.dim, arguments.repeats)
    finally:
        shutil.rmtree(folder)
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def measure(folder: Path, rows: int, dim: int, repeats: int) -> dict[str, Any]:
    """Return machine and figures."""
    random = np.random.default_rng(0)
    keys = random.integers(0, 256, (rows, 16), dtype=np.uint8)
    features = np.empty((rows, dim), np.float16)
    for start in range(0, rows, BATCH):
        features[start : start + BATCH] = random.standard_normal((min(BATCH, rows - start), dim), np.float32)
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {processor()}",
        "versions": f"python {platform.python_version()}, numpy {np.__version__}, h5py {h5py.__version__}, "
        f"HDF5 {h5py.version.hdf5_version}",
        "n": f"{rows} rows x {dim} float16 = {features.nbytes / 1e9:.2f} GB, median of {repeats}",
        "load": [round(os.getloadavg()[0], 2)],
    }
    report["writing"] = writing(folder, keys, features, repeats)
    report["reading"] = reading(folder, keys, features, repeats)
    report["load"].append(round(os.getloadavg()[0], 2))
    return report


def writing(folder: Path, keys: np.ndarray, features: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """Return the rates of the store's writer, given rows as they are stored or in float32, and of plain files."""
    wide = features[: 8 * BATCH].astype(np.float32)

    def store(rows: np.ndarray) -> Callable[[], None]:
        def run() -> None:
            made = FeatureStore.create(folder / "written", {**DESCRIPTION, "hidden_size": features.shape[1]})
            with made.writer(nbytes=SHARD, seconds=1e9) as writer:
                for start in range(0, len(keys), BATCH):
                    at = start % (len(rows) - BATCH + 1)
                    part = keys[start : start + BATCH]
                    writer.append(part, rows[at : at + len(part)])

        return run

    def plain() -> None:
        (folder / "written").mkdir()
        step = SHARD // 2 // features[:1].nbytes  # half of it waits while the other half is written: a shard is 32 MiB
        for start in range(0, len(features), step):
            with (folder / "written" / str(start)).open("wb", buffering=0) as file:
                file.write(features[start : start + step].data)
                os.fsync(file.fileno())

    def settle() -> None:
        shutil.rmtree(folder / "written", ignore_errors=True)
        os.sync()
        fetch(features.nbytes)

    runs = {
        "plain files with fsync": plain,
        "writer, float16 rows": store(features),
        "writer, float32 rows, rounded": store(wide),
    }
    times = take_turns(runs, repeats, settle)
    settle()
    return [row(name, seconds, features.nbytes, times["plain files with fsync"]) for name, seconds in times.items()]


def reading(folder: Path, keys: np.ndarray, features: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """Return the rates of opening, of gathering in order and at random, and of the alternatives."""
    rows, dim = features.shape
    made = FeatureStore.create(folder / "store", {**DESCRIPTION, "hidden_size": dim})
    with made.writer(nbytes=SHARD, seconds=1e9) as writer:
        for start in range(0, rows, BATCH):
            writer.append(keys[start : start + BATCH], features[start : start + BATCH])
    np.save(folder / "all.npy", features)
    with h5py.File(folder / "all.h5", "w") as file:
        file["features"] = features
    store = FeatureStore.open(folder / "store")
    chosen = np.random.default_rng(1).choice(rows, min(100_000, rows), replace=False)
    few = np.sort(chosen[:: max(1, len(chosen) // 10_000)])  # h5py takes ascending row numbers alone
    warm = np.empty_like(features)
    with h5py.File(folder / "all.h5", "r") as file:
        dataset = file["features"]
        variants: dict[str, tuple[Callable[[], object], int]] = {
            "memory copy to fresh memory": (features.copy, features.nbytes),
            "memory copy to memory in use": (lambda: np.copyto(warm, features), features.nbytes),
            "open": (lambda: FeatureStore.open(folder / "store"), 0),
            "index lookup, in order": (lambda: store.contains(keys), 0),
            "checksums alone, one thread": (lambda: row_checksums(keys, features), features.nbytes),
            "gather all in order": (lambda: store.gather(keys), features.nbytes),
            "gather all in order, unchecked": (lambda: store.gather(keys, check=False), features.nbytes),
            "np.load": (lambda: np.load(folder / "all.npy"), features.nbytes),
            "h5py dataset[:]": (lambda: dataset[:], features.nbytes),
            f"gather {len(chosen)} at random": (lambda: store.gather(keys[chosen]), len(chosen) * dim * 2),
            f"memory, features[{len(chosen)} at random]": (lambda: features[chosen], len(chosen) * dim * 2),
            f"np.load(mmap)[{len(chosen)} at random]": (
                lambda: np.load(folder / "all.npy", mmap_mode="r")[chosen],
                len(chosen) * dim * 2,
            ),
            f"h5py dataset[{len(few)} at random]": (lambda: dataset[few], len(few) * dim * 2),
        }
        times = take_turns({name: run for name, (run, _) in variants.items()}, repeats, lambda: fetch(features.nbytes))
    copy = times["memory copy to fresh memory"]
    figures = [row(name, times[name], nbytes, copy, features.nbytes) for name, (_, nbytes) in variants.items()]
    for figure, wanted in ((figures[5], keys), (figures[9], keys[chosen])):
        figure["extra_mb"] = round(extra_memory(folder / "store", wanted, figure["bytes"]) / 1e6, 1)
    return figures


def row(name: str, seconds: float, nbytes: int, base: float, base_bytes: int | None = None) -> dict[str, Any]:
    """Return one figure: its rate is also given as a fraction of the base's rate."""
    fraction = (nbytes / seconds) / ((base_bytes or nbytes) / base) if nbytes else None
    return {"name": name, "seconds": seconds, "bytes": nbytes, "fraction": fraction}


def take_turns(
    variants: dict[str, Callable[[], object]], repeats: int, settle: Callable[[], None] | None = None
) -> dict[str, float]:
    """Return the median seconds of every variant; what else the machine does hits all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            if settle:
                settle()
            start = time.perf_counter()
            result = run()
            times[name].append(time.perf_counter() - start)
            del result
    return {name: statistics.median(values) for name, values in times.items()}


def fetch(nbytes: int) -> None:
    """Touch free memory: a virtual machine's may have gone to its host, and slows whoever needs it back first."""
    np.ones(nbytes * 5 // 4, np.uint8)


def extra_memory(folder: Path, chosen: np.ndarray, result: int) -> int:
    """Return the most anonymous memory, above the result, of a fresh process that opens the store and gathers."""
    np.save(folder.with_name("chosen.npy"), chosen)
    command = [sys.executable, "-c", READER, str(folder), str(folder.with_name("chosen.npy"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        before = peak = anonymous(process.pid)
        print("go", file=process.stdin, flush=True)
        while not select.select([process.stdout], [], [], 0.001)[0]:
            peak = max(peak, anonymous(process.pid))
        process.communicate("end")
    return peak - before - result


def anonymous(process: int) -> int:
    """Return a process's anonymous resident memory in bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def show(report: dict[str, Any]) -> None:
    """Print the report as a table."""
    for name in ("machine", "versions", "n", "load"):
        print(f"{name}: {report[name]}")
    for part, base in (("writing", "of plain"), ("reading", "of copy")):
        print(f"\n{part:<44}{'s':>9}{'GB/s':>9}{base:>10}{'MB extra':>10}")
        for figure in report[part]:
            rate = f"{figure['bytes'] / figure['seconds'] / 1e9:.2f}" if figure["bytes"] else ""
            fraction = f"{figure['fraction']:.0%}" if figure["fraction"] else ""
            extra = figure.get("extra_mb", "")
            print(f"{figure['name']:<44}{figure['seconds']:>9.3f}{rate:>9}{fraction:>10}{extra:>10}")


if __name__ == "__main__":
    main()
