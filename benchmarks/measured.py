"""The rows of a benchmark: printed as they come, and written as JSON with commit, machine and versions."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.cost.measure import commit, processor


@dataclass
class Results:
    """Rows of one table: what, figure, unit, remark."""

    rows: list[tuple[str, float, str, str]] = field(default_factory=list)

    def add(self, what: str, figure: float, unit: str, remark: str = "") -> None:
        """Print a row and keep it."""
        self.rows.append((what, figure, unit, remark))
        print(f"{what:58} {figure:>14,.4g} {unit:10} {remark}", flush=True)

    def write(self, path: Path) -> None:
        """Write commit, machine, versions and rows as JSON."""
        import sentence_transformers
        import transformers

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        about = {
            "commit": commit(),
            "machine": gpu or processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "sentence_transformers": sentence_transformers.__version__,
        }
        rows = [dict(zip(("what", "figure", "unit", "remark"), row, strict=True)) for row in self.rows]
        path.write_text(json.dumps({"about": about, "results": rows}, indent=1))
