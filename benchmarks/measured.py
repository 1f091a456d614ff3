"""The rows of a benchmark: printed as they come, and written as JSON with commit, machine and versions."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pipeline.cost.measure import commit, processor


def machine(device: str) -> dict[str, Any]:
    """Say what a figure was measured on, and by which code."""
    packages = {}
    for name in ("torch", "numpy", "sentence-transformers", "transformers", "scikit-learn"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit(),
        "machine": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **packages,
    }


class Results:
    """Rows of one table: what, figure, unit, remark; written as JSON after each."""

    def __init__(self, about: dict[str, Any], path: Path | None) -> None:
        """Begin an empty table."""
        self.rows: list[dict[str, Any]] = []
        self._about, self._path = about, path

    def add(self, what: str, figure: float, unit: str, remark: str = "", **more: Any) -> None:
        """Print a row and keep it; `more` goes into the JSON alone."""
        print(f"{what:68} {figure:>10,.4g} {unit:10} {remark}", flush=True)
        self.rows.append({"what": what, "figure": figure, "unit": unit, "remark": remark, **more})
        if self._path:
            self._path.write_text(json.dumps({"about": self._about, "results": self.rows}, indent=1))


def timed(call: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, the first one left out; the GPU is waited for."""
    seconds = []
    for _ in range(repeats + 1):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
