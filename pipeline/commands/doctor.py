"""`pipeline doctor`: what this machine has, what is missing, what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline.terminal.command import Session, command
from pipeline.terminal.extras import EXTRAS


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok` is None where it is optional and absent."""

    what: str
    ok: bool | None
    found: str
    remedy: str = ""


@command("doctor", example="pipeline doctor")
def COMMAND(session: Session) -> dict[str, Any]:
    """Look at versions, devices, weights, extras and disk; exit status 1 if something needed is missing."""
    from pipeline.errors import PipelineError

    findings = [finding for look in (_versions, _devices, _weights, _extras, _disk) for finding in look(session)]
    table = Table("", "what", "found", "what to do")
    for column in table.columns:
        column.overflow = "fold"  # a path is whole or of no use
    for finding in findings:
        mark = {True: "ok", False: "MISSING", None: "-"}[finding.ok]
        table.add_row(mark, finding.what, finding.found, finding.remedy)
    session.console.show(table)
    broken = [finding for finding in findings if finding.ok is False]
    if broken:
        raise PipelineError(f"{len(broken)} needed: {', '.join(f.what for f in broken)}", broken[0].remedy)
    return {"findings": [asdict(finding) for finding in findings]}


def _versions(session: Session) -> Iterator[Finding]:
    yield Finding("python", sys.version_info >= (3, 11), platform.python_version(), "")
    for name in ("torch", "transformers", "h5py", "numpy", "polars"):
        yield Finding(name, True, importlib.metadata.version(name))


def _devices(session: Session) -> Iterator[Finding]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("GPU", True if gpus else None, ", ".join(gpus) or "none", "" if gpus else "embedding runs on the CPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    amx = _quietly(torch.cpu._is_amx_tile_supported)
    avx = _quietly(torch.cpu._is_avx512_bf16_supported)
    native = "bfloat16 natively (AMX)" if amx else "bfloat16 by AVX-512" if avx else "float32"
    yield Finding("CPU", True, f"{cores} cores, multiplies {native}")


def _quietly(look: Callable[[], bool]) -> bool:
    try:
        return bool(look())
    except (AttributeError, RuntimeError):
        return False


def _weights(session: Session) -> Iterator[Finding]:
    import cache
    from cache.backbone import cached

    for name in cache.backbone.BACKBONES:
        source = cache.resolve(name).source
        there = Path(source).is_dir() or cached(source) is not None
        remedy = "" if there else "fetched from the hub at first use; without a hub take --backbone minilm or a path"
        yield Finding(f"weights of {name}", True if there else None, source if there else "not here", remedy)


def _extras(session: Session) -> Iterator[Finding]:
    for name, extra in EXTRAS.items():
        there = all(importlib.util.find_spec(module) is not None for module in extra.packages)
        remedy = "" if there else f"for {extra.purpose}: {extra.command}"
        yield Finding(f"[{name}]", True if there else None, "installed" if there else "absent", remedy)


def _disk(session: Session) -> Iterator[Finding]:
    root = session.artifacts.root
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    writable = os.access(there, os.W_OK)
    free = shutil.disk_usage(there).free
    yield Finding(f"{root}", writable, f"{free / 1e9:,.1f} GB free", "" if writable else "name another --artifacts")
