"""The same corpus on 1, 2, 4, ... devices: what `benchmarks/cache/embed.py --devices` runs."""

from __future__ import annotations

import argparse
import gzip
import itertools
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured import Results
from cache import EmbedRequest, FeatureStore, embed_missing, resolve, text_keys
from cache.backbone import Backbone
from cache.devices import choose_devices, cores

INSTRUCTION = "Instruct: Given a request to an assistant, find requests with the same intent, number {}\nQuery: "


class Repeated:
    """Every text with one instruction after another before it: made as it is read, so that no list takes gigabytes."""

    def __init__(self, texts: list[str], instructions: int) -> None:
        """Hold the texts once."""
        self._texts, self._instructions = texts, instructions

    def __len__(self) -> int:
        """Return the number of texts with their instructions."""
        return len(self._texts) * self._instructions

    def __iter__(self) -> Iterator[str]:
        """Yield them, an instruction at a time."""
        for number in range(self._instructions):
            before = INSTRUCTION.format(number)
            yield from (before + text for text in self._texts)


@dataclass(frozen=True)
class Timed:
    """One embedding of the corpus: its report and store, and seconds from its start to the first batch and to the end.

    `host` and `crew` are processor seconds of this process and of those that it started.
    """

    report: Any
    startup: float
    seconds: float
    host: float
    crew: float

    @property
    def rate(self) -> float:
        """Texts per second after start-up."""
        return float(self.report.texts / (self.seconds - self.startup))


def on_devices(options: argparse.Namespace, results: Results) -> None:
    """The same corpus on 1, 2, 4, ... of the devices."""
    with gzip.open(options.texts, "rt") as file:
        texts = [line.rstrip("\n") for line in file][:: options.every]
    corpus = Repeated(texts, options.instructions)
    backbone = resolve(str(options.checkpoint) if options.checkpoint else "minilm")
    devices = choose_devices(options.devices)
    counts = [n for n in (1, 2, 4, 8) if n < len(devices)] + [len(devices)]
    print(f"{len(corpus):,} texts, {backbone.name}, {', '.join(devices)}, {cores()} cores", flush=True)
    with tempfile.TemporaryDirectory() as root:
        if options.warm:  # what is compiled once a machine is no part of what devices gain
            timed_embedding(texts[:4096], backbone, Path(root) / "warm", devices[:1])
        one: Timed | None = None
        for count in counts:
            done = timed_embedding(corpus, backbone, Path(root) / str(count), devices[:count])
            report_devices(done, one, devices[:count], results)
            if one is None:
                one = done
            else:
                report_features(one, done, corpus, results)
                shutil.rmtree(Path(root) / str(count))


def timed_embedding(texts: Any, backbone: Backbone, root: Path, devices: list[str]) -> Timed:
    """Embed into a fresh store."""
    first = 0.0

    def watch(progress: Any) -> None:
        nonlocal first
        if progress.stage == "computing" and progress.done and not first:
            first = time.perf_counter()

    before = _processor_seconds()
    began = time.perf_counter()
    report = embed_missing(texts, EmbedRequest(backbone, root, devices=",".join(devices)), progress=watch)
    seconds = time.perf_counter() - began
    host, crew = (after - earlier for after, earlier in zip(_processor_seconds(), before, strict=True))
    return Timed(report, first - began, seconds, host, crew)


def _processor_seconds() -> tuple[float, float]:
    """Return the processor seconds of this process, and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    host, crew = (usage.ru_utime + usage.ru_stime for usage in both)
    return host, crew


def report_devices(done: Timed, one: Timed | None, devices: list[str], results: Results) -> None:
    """Rows of one number of devices."""
    report, count = done.report, len(devices)
    gain = f"{done.rate / one.rate:.2f} x one device; " if one else ""
    remark = f"{gain}n = {report.texts:,}, {report.tokens:,} tokens, {report.nodes:,} nodes"
    results.add(f"{count} x {devices[0]}, after start-up", done.rate, "texts/s", remark)
    results.add("  start-up, until the first batch", done.startup, "s")
    results.add("  in all", done.seconds, "s", f"{one.seconds / done.seconds:.2f} x one device" if one else "")
    stages = ", ".join(f"{stage} {seconds / count:.2f}" for stage, seconds in report.stages.items())
    results.add("  a process's seconds by stage, mean", sum(report.stages.values()) / count, "s", stages)
    if count > 1:
        share = done.host / done.seconds
        results.add("  of one core: what the scheduling process uses", share, "", "near 1, it is what limits")
    results.add("  cores busy in all", (done.host + done.crew) / done.seconds, "", f"of {cores()}")
    for note in report.notes:
        print(f"  note: {note}")


def report_features(one: Timed, done: Timed, corpus: Repeated, results: Results) -> None:
    """Compare every row with that of one device."""
    stores = [FeatureStore.open(each.report.stores[0].folder) for each in (one, done)]
    least, worst, same, rows = 1.0, 0.0, 0, 0
    texts = iter(corpus)
    while some := list(itertools.islice(texts, 1 << 16)):
        a, b = (store.gather(text_keys(some)).astype(np.float32) for store in stores)
        lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        worst = max(worst, float((np.linalg.norm(a - b, axis=1) / lengths[0]).max()))
        least = min(least, float(((a * b).sum(1) / lengths[0] / lengths[1]).min()))
        same, rows = same + int((a == b).all(axis=1).sum()), rows + len(some)
    remark = f"least cosine {least:.6f}, {same:,} of {rows:,} rows bit for bit, {len(stores[1]):,} rows stored"
    results.add("  features: largest relative difference from one device", worst, "", remark)
