"""What the processor is called: timings are told with it."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Name the processor as the system does; its architecture where that says no more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
