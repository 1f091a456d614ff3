"""What opening a store costs as it grows: every shard's header, every key, one sort; and what the index then takes.

    python benchmarks/cache/index.py --rows 1000000,4000000  # half a minute, 0.2 GB on the disk
    python benchmarks/cache/index.py --rows 4000000 --shard-rows 16181

Rows of 8 dimensions stand for rows of any width: opening reads keys (16 bytes per row) and headers, no features.
`--shard-rows` defaults to what a writer commits at once of 1,024 float16 dimensions, 32 MiB. Memory is what the index
takes, and the growth of the process at its peak, while the index is built.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import cache
from cache.store.shard import Rows, list_shards, read_header
from cache.store.writer import new_name, write_shard
from pipeline.cost.measure import processor

SHARD_ROWS = (32 << 20) // (1024 * 2)
DESCRIPTION = {"backbone": "fake", "fingerprint": "f" * 32, "hidden_size": 8, "store_dtype": "float16"}


def main() -> None:
    """Write, open in a fresh process, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000,4000000", help="comma-separated sizes")
    parser.add_argument("--shard-rows", type=int, default=SHARD_ROWS)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    found = []
    for rows in map(int, arguments.rows.split(",")):
        with tempfile.TemporaryDirectory(prefix="index-") as folder:
            write(Path(folder) / "store", rows, arguments.shard_rows)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found.append({"rows": rows, **pool.apply(opened, (Path(folder) / "store",))})
    print(f"{processor()}, {platform.system()}; shards of {arguments.shard_rows:,} rows, files in the page cache\n")
    print(f"{'rows':>12}{'shards':>8}{'headers, s':>12}{'open, s':>9}{'index, B/row':>14}{'peak, B/row':>13}{'M/s':>7}")
    for row in found:
        took = f"{row['header_seconds']:>12.2f}{row['open_seconds']:>9.2f}"
        room = f"{row['index_bytes_per_row']:>14.1f}{row['peak_bytes_per_row']:>13.1f}"
        print(f"{row['rows']:>12,}{row['shards']:>8,}{took}{room}{row['finds_per_second'] / 1e6:>7.1f}")
    if arguments.json:
        report = {"machine": processor(), "shard_rows": arguments.shard_rows, "rows": found}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def write(folder: Path, rows: int, shard_rows: int) -> None:
    """A store of random keys."""
    cache.FeatureStore.create(folder, DESCRIPTION)
    generator = np.random.default_rng(0)
    for first in range(0, rows, shard_rows):
        count = min(shard_rows, rows - first)
        keys = generator.integers(0, 256, (count, 16), dtype=np.uint8)
        block = Rows(keys, np.zeros((count, 8), np.float16), np.zeros(count, np.uint64))
        write_shard(folder / new_name(), DESCRIPTION, count, [block])


def opened(folder: Path) -> dict[str, Any]:
    """Open it, in a process that has done nothing else."""
    cache.FeatureStore.create(folder.with_name("empty"), DESCRIPTION)  # imports what opening needs
    began = time.perf_counter()
    paths = list_shards(folder)
    for path in paths:
        read_header(path, DESCRIPTION)
    headers = time.perf_counter() - began
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    began = time.perf_counter()
    store = cache.FeatureStore.open(folder)
    seconds = time.perf_counter() - began
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
    index = store.index
    nbytes = sum(array.nbytes for array in (index.first, index.second, index.numbers, index.begins))
    asked = np.random.default_rng(1).integers(0, 256, (1_000_000, 16), dtype=np.uint8)
    began = time.perf_counter()
    store.contains(asked)
    return {
        "shards": len(paths),
        "header_seconds": headers,
        "open_seconds": seconds,
        "index_bytes_per_row": nbytes / len(store),
        "peak_bytes_per_row": peak / len(store),
        "finds_per_second": len(asked) / (time.perf_counter() - began),
    }


if __name__ == "__main__":
    main()
