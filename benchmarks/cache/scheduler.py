"""How fast texts are looked up and handed out to processes that compute nothing: what bounds many GPUs of one host.

    python benchmarks/cache/scheduler.py --texts icd10cm.txt.gz --instructions 24 --lookups 0 1 2

The processes take items and send what those of a GPU would, and store nothing. The figure that counts is CPU time
of the scheduling process: where every process has a core, that is what a text takes. `--lookups 0` has it do all
itself.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.cache.embed_devices import Repeated
from cache import FeatureStore
from cache.backbone import BACKBONES
from cache.lookup import Lookup, lookup_pool
from cache.plan import Plan
from cache.progress import Tally
from cache.workers import Acknowledged, Channel, embed_processes
from cache.workers.work_items import ITEM_TEXTS
from cache.workers.worker import Job
from pipeline.cost.measure import processor

BATCH_TEXTS = 5000
DESCRIPTION = {"store_dtype": "float16", "hidden_size": 1024}


def compute_nothing(channel: Channel, job: Job) -> Tally:
    """Send what an embedding process sends, and do nothing else."""
    tally = Tally()
    for item in embed_processes._items(channel):
        if item is None:
            continue
        for part in np.array_split(item.rows, -(-len(item.rows) // BATCH_TEXTS)):
            channel.send(embed_processes.Started(part.astype(np.min_scalar_type(part.max()))))
            channel.send(embed_processes.Progress(len(part), "computing"))
        channel.send(Acknowledged(item.number, Tally(len(item.rows))))
    return tally


def scheduled(corpus: Repeated, count: int, lookups: int) -> tuple[float, float]:
    """Hand a corpus out to so many processes; return seconds, and CPU-seconds of this process, per text."""
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        store = FeatureStore.create(Path(root) / "store", DESCRIPTION)
        stores = ((store.folder, store.description),)
        plan = Plan(Path(root), BACKBONES["minilm"], (1,), "bfloat16", stores, "", ())
        lookup = Lookup(corpus, [store], "")
        items = lookup.missing()
        if lookups:
            items = lookup.missing_items(stack.enter_context(lookup_pool(lookups, "", ITEM_TEXTS["cuda"], count)))
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        tally = embed_processes.compute(Job(plan, len(corpus)), ["cpu"] * count, items, lambda texts, stage: None)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        assert tally.computed == len(corpus), f"{tally.computed} of {len(corpus)}"
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds / len(corpus), busy / len(corpus)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="gzipped file of one text per line")
    parser.add_argument("--instructions", type=int, default=24, help="how often the corpus is repeated")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--lookups", type=int, nargs="+", default=[0, 1, 2], help="processes that look texts up")
    options = parser.parse_args()
    with gzip.open(options.texts, "rt") as file:
        corpus = Repeated([line.rstrip("\n") for line in file], options.instructions)
    embed_processes._serve = compute_nothing
    ITEM_TEXTS["cpu"] = ITEM_TEXTS["cuda"]
    print(f"n = {len(corpus):,}, {options.processes} processes, {processor()}, {os.cpu_count()} cores")
    print(f"python {platform.python_version()}, numpy {np.__version__}")
    for lookups in options.lookups:
        seconds, busy = scheduled(corpus, options.processes, lookups)
        print(
            f"{lookups} lookup processes: {busy * 1e6:.2f} us of the scheduling process per text,"
            f" {1 / busy:,.0f} texts per CPU-second;"
            f" {seconds * 1e6:.2f} us elapsed"
        )


if __name__ == "__main__":
    main()
