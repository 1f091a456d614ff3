"""CLINC's texts, a call timed, and texts embedded into a fresh store."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cache import EmbedRequest, embed_missing
from cache.backbone import Backbone


def clinc(folder: Path) -> list[str]:
    """Return the 22,500 in-scope texts."""
    data = json.loads((folder / "data_full.json").read_text())
    return [row[0] for split in ("train", "val", "test") for row in data[split]]


def timed(function: Callable[[], Any], repeats: int = 3) -> float:
    """Return the seconds of the fastest of some calls, the device's work included."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


def stored(texts: list[str], backbone: Backbone, **options: Any) -> tuple[Any, float]:
    """Embed into a fresh store; return the report and texts per second without loading and compiling."""
    with tempfile.TemporaryDirectory() as root:
        report = embed_missing(texts, EmbedRequest(backbone, Path(root), **options))
    steady = report.seconds - report.stages["loading"] - report.stages["compiling"]
    return report, report.texts / steady
