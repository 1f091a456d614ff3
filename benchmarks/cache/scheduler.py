"""How fast texts are looked up and dealt out to processes that compute nothing: what bounds many GPUs of one host.

    python benchmarks/cache/scheduler.py --texts icd10cm.txt.gz --instructions 24 --readers 0 1 2

The processes take pieces and say what those of a GPU would, and store nothing. The figure that counts is processor time
of the dealing process: where everyone has a core, that is what a text takes. `--readers 0` has it do all itself.
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
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cache.embed_devices import Repeated
from cache import FeatureStore
from cache.lookup import Lookup, LookupPool
from cache.progress import Tally
from cache.workers import scheduler
from cache.workers.work_items import ITEM_TEXTS
from cache.workers.worker import Job
from pipeline.cost.measure import processor

if TYPE_CHECKING:
    from cache.workers.process_pool import Channel
    from cache.workers.work_items import WorkItem

BATCH_TEXTS = 5000
DESCRIPTION = {"store_dtype": "float16", "hidden_size": 1024}


def computing_nothing(channel: Channel, job: Job, first: WorkItem) -> Tally:
    """Do what `cache.workers.scheduler` has a process do, but for the work."""
    tally = Tally()
    piece: Any = first
    while piece is not None:
        for part in np.array_split(piece.rows, -(-len(piece.rows) // BATCH_TEXTS)):
            channel.send(scheduler.Started(part.astype(np.min_scalar_type(part.max())), (0, 0, 0)))
            channel.send(scheduler.Progress(len(part), "computing"))
        tally.computed += len(piece.rows)
        piece = channel.request()
    return tally


def dealt(corpus: Repeated, count: int, readers: int) -> tuple[float, float]:
    """Deal a corpus to so many processes; return seconds, and processor seconds of this process, a text."""
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        store = FeatureStore.create(Path(root) / "store", DESCRIPTION)
        stores = ((store.folder, store.description),)
        job = Job(Path(root), None, (1,), "bfloat16", "", None, stores, "", len(corpus))  # type: ignore[arg-type]
        lookup = Lookup(corpus, [store], "")
        chunks = lookup.missing()
        if readers:
            chunks = lookup.missing_items(stack.enter_context(LookupPool(readers, "", ITEM_TEXTS["cuda"], count)))
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        tally = scheduler.run_jobs(job, ["cpu"] * count, chunks, lambda texts, stage: None)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        assert tally.computed == len(corpus), f"{tally.computed} of {len(corpus)}"
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds / len(corpus), busy / len(corpus)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="gzipped file of one text a line")
    parser.add_argument("--instructions", type=int, default=24, help="how often the corpus is repeated")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--readers", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    with gzip.open(options.texts, "rt") as file:
        corpus = Repeated([line.rstrip("\n") for line in file], options.instructions)
    scheduler._serve = computing_nothing  # type: ignore[assignment]
    ITEM_TEXTS["cpu"] = ITEM_TEXTS["cuda"]
    print(f"n = {len(corpus):,}, {options.processes} processes, {processor()}, {os.cpu_count()} cores")
    print(f"python {platform.python_version()}, numpy {np.__version__}")
    for readers in options.readers:
        seconds, busy = dealt(corpus, options.processes, readers)
        print(
            f"{readers} readers: {busy * 1e6:.2f} us of the dealing process a text, {1 / busy:,.0f} texts a CPU second;"
            f" {seconds * 1e6:.2f} us elapsed"
        )


if __name__ == "__main__":
    main()
