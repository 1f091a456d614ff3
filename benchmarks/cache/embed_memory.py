"""Memory that streaming a million texts takes: the part `memory` of `benchmarks/cache/embed.py --device cuda`."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks.measured import Results
from cache import EmbedRequest, embed_missing
from cache.backbone import Backbone


def memory(backbone: Backbone, texts: list[str], options: argparse.Namespace, results: Results) -> None:
    """A million short texts, made as they are read: what this process and its workers need above the model."""
    stream = (f"{number} {text}" for number in range(-(-options.million // len(texts))) for text in texts)
    watch = _MemoryWatch()
    with tempfile.TemporaryDirectory() as root:
        report = embed_missing(
            itertools.islice(stream, options.million),
            EmbedRequest(backbone, Path(root), devices="cuda"),
            progress=watch.progress,
        )
    watch.stop()
    remark = f"n = {report.texts:,}; {report.texts / report.seconds:,.0f} texts/s, start included"
    results.add("memory above the loaded model, texts streamed", (watch.peak - watch.loaded) / 1e6, "MB", remark)
    results.add("  of which worker processes", watch.helpers / 1e6, "MB")


class _MemoryWatch:
    """Samples resident memory, this process's and its children's, from the first batch on."""

    def __init__(self) -> None:
        self.loaded = self.peak = self.helpers = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def progress(self, progress: Any) -> None:
        """Begin when the model is loaded."""
        if progress.stage == "computing" and not self.loaded:
            self.loaded = _resident("self")

    def _sample(self) -> None:
        while not self._stopped.wait(0.02):
            if not self.loaded:
                continue
            helpers = sum(_resident(pid) for pid in _children())
            self.peak, self.helpers = max(self.peak, _resident("self") + helpers), max(self.helpers, helpers)

    def stop(self) -> None:
        """Stop sampling."""
        self._stopped.set()
        self._thread.join()
        if not self.loaded:
            sys.exit("part memory: too few texts to see a batch; raise --million")


def _children() -> set[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found |= set((task / "children").read_text().split())
    return found


def _resident(process: str) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)
