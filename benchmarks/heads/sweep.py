"""What a sweep gains by several devices: the same grid by one and by more of them, and whether the heads are the same.

    python benchmarks/heads/sweep.py --artifacts FOLDER --devices cuda:0 cuda:0,cuda:1 --json sweep.json
    python benchmarks/heads/sweep.py --artifacts FOLDER --devices cpu cpu:2 --epochs 1

FOLDER is an artifacts folder that holds stored features of the datasets (`pipeline embed`); it is copied, not changed.
The grid is two datasets x three methods x two head presets, the seeds of a point trained together: with many seeds on a
GPU little is left to share out, so less than the number of devices is to be expected. Each figure is a whole `pipeline
sweep` process, start to exit; a second call, with nothing to do, tells how much of it is start-up and reading.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch

from benchmarks.measured import machine


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, required=True, help="folder with stored features of the datasets")
    parser.add_argument("--devices", nargs="+", default=["cpu", "cpu:2"], help="the first is what others are held to")
    parser.add_argument("--datasets", default="clinc,icd10cm")
    parser.add_argument("--methods", default="v5,mrl,joint")
    parser.add_argument("--heads", default="paper,linear")
    parser.add_argument("--seeds", default="42,123,456")
    parser.add_argument("--epochs", help="default: each method's own")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    axes = [f"--{name}={getattr(options, name)}" for name in ("datasets", "methods", "heads", "seeds")]
    axes += [f"--epochs={options.epochs}"] if options.epochs else []
    rows = measure(options.artifacts, axes, options.devices)
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "about": {
                        **machine("cpu"),
                        "gpus": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
                    },
                    "grid": axes,
                    "results": rows,
                },
                indent=1,
            )
        )


def measure(artifacts: Path, axes: list[str], devices: list[str]) -> list[dict[str, Any]]:
    """Sweep on each choice of devices; print and return a row each."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root:
        for number, choice in enumerate(devices):
            folder = Path(root) / str(number)
            shutil.copytree(artifacts, folder, ignore=shutil.ignore_patterns("runs", "reports"))
            seconds, swept = sweep(folder, [*axes, "--devices", choice])
            again, nothing = sweep(folder, [*axes, "--devices", choice])
            assert nothing["trained"] == 0, "a second call trained something"
            row = {
                "devices": choice,
                "runs": swept["trained"],
                "seconds": seconds,
                "nothing_to_do_seconds": again,
                "training_seconds": sum(run["seconds"] for run in swept["runs"]),
                "gain": rows[0]["seconds"] / seconds if rows else 1.0,
                "gain_without_reading": (rows[0]["seconds"] - rows[0]["nothing_to_do_seconds"]) / (seconds - again)
                if rows
                else 1.0,
                **compared(Path(root) / "0", folder, swept),
            }
            rows.append(row)
            print("  ".join(f"{name} {shown(value)}" for name, value in row.items()), flush=True)
    return rows


def sweep(artifacts: Path, arguments: list[str]) -> tuple[float, dict[str, Any]]:
    """Run `pipeline sweep` in a process of its own; return its seconds and its JSON."""
    command = [sys.executable, "-m", "pipeline.cli", "sweep", *arguments, "--artifacts", str(artifacts), "--json"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stderr)
    said: dict[str, Any] = json.loads(done.stdout)
    return seconds, said


def compared(first: Path, folder: Path, swept: dict[str, Any]) -> dict[str, Any]:
    """How many heads are those of the first choice bit for bit, and how far apart accuracies are."""
    same = sum(
        (first / path).read_bytes() == (folder / path).read_bytes()
        for run in swept["runs"]
        for path in [Path(run["path"]).relative_to(folder) / "head.safetensors"]
    )
    tables = [
        pl.read_parquet(each / "reports" / "sweep.parquet").sort("run", "dim", "level") for each in (first, folder)
    ]
    apart = (tables[0]["accuracy"] - tables[1]["accuracy"]).abs()
    return {"heads_bit_for_bit": same, "accuracy_apart_mean": apart.mean(), "accuracy_apart_most": apart.max()}


def shown(value: Any) -> str:
    """A figure with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
