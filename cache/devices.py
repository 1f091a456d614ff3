"""Where to compute and in which number format, chosen well without being asked.

`auto` takes the GPU where there is one, else the CPU. bfloat16 is chosen where it is multiplied natively: on such
hardware it is two to sixteen times faster and moves a normalised feature by less than float16 storage of another
machine's float32 would be noticed in any accuracy; where it is emulated it is slower than float32.
"""

from __future__ import annotations

import re
from pathlib import Path

from cache.errors import CacheError

DTYPES = ("float32", "bfloat16")


def check_devices(devices: str) -> None:
    """Refuse a misspelt choice without loading torch.

    :raises CacheError: `devices` is none of "auto", "cpu", "cuda", "all", "cuda:N" and "cpu:PROCESSES".
    """
    if not re.fullmatch(r"auto|all|cuda(:\d+)?|cpu(:[1-9]\d?)?", devices):
        raise CacheError(
            f"devices {devices!r}", "use one of auto, cpu, cuda, all; cuda:1 for one GPU, cpu:2 for two processes"
        )


def choose_devices(devices: str) -> list[str]:
    """Return the torch device of every process to run, such as ["cuda:0", "cuda:1"] or ["cpu", "cpu"].

    :raises CacheError: an unknown word, or a GPU asked for where there is none.
    """
    check_devices(devices)
    word, _, number = devices.partition(":")
    if word == "cpu":
        return ["cpu"] * int(number or 1)
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if word == "auto":
        return ["cuda:0"] if count else ["cpu"]
    if word == "all":
        return [f"cuda:{i}" for i in range(count)] or ["cpu"]
    if not count:
        raise CacheError(f"devices {devices}: torch sees no GPU here", "use cpu, or install a CUDA build of torch")
    if int(number or 0) >= count:
        raise CacheError(f"devices {devices}: there are {count} GPUs", f"name one from cuda:0 to cuda:{count - 1}")
    return [f"cuda:{int(number or 0)}"]


def native_dtype(device: str) -> str:
    """Return "bfloat16" where `device` multiplies it natively, else "float32"."""
    if device.startswith("cuda"):
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if _cpu_flags() & {"amx_bf16", "avx512_bf16"} else "float32"


def _cpu_flags() -> set[str]:
    """Return the processor's feature flags as Linux lists them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))
