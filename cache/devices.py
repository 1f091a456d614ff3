"""Where to compute, chosen well without being asked.

`auto` takes the GPU where there is one, else the CPU. A GPU's number counts those that `CUDA_VISIBLE_DEVICES` lets
this process see, as torch does. Every entry of a list is a process, so a GPU named twice has two.

A device can be lost while it works: memory that another program took, a fault after which no kernel runs. What tells
that from a fault of the work, which every device would meet, is here too, since devices' own errors say it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from contextlib import AbstractContextManager
from typing import Any

from cache.errors import CacheError, DeviceError

_WORDS = "use one of auto, cpu, cuda, all; cuda:1 for one GPU, cuda:0,cuda:2 for some, cpu:2 for two processes"
_ONE = r"cuda(:\d+)?|cpu(:[1-9]\d?)?"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
# what CUDA, its libraries and torch's allocators begin or end their messages with
_DEVICE_FAULT = re.compile(r"CUDA|CUBLAS|CUDNN|cuDNN|NVML|NVIDIA driver|Triton Error|DefaultCPUAllocator")


def check_devices(devices: str) -> None:
    """Refuse a misspelt choice without loading torch.

    :raises CacheError: `devices` is neither "auto" nor "all", nor a list of "cpu", "cpu:PROCESSES", "cuda" and
        "cuda:N"; or it names CPUs and GPUs, whose features differ in their last bits.
    """
    if not re.fullmatch(rf"auto|all|({_ONE})(,({_ONE}))*", str(devices)):
        raise CacheError(f"devices {devices!r}", _WORDS)
    if "cpu" in devices and "cuda" in devices:
        raise CacheError(f"devices {devices!r} mixes CPU and GPU", "name GPUs alone, or CPU processes alone")


def choose_devices(devices: str) -> list[str]:
    """Return the torch device of every process to run, such as ["cuda:0", "cuda:1"] or ["cpu", "cpu"].

    :raises CacheError: an unknown word, or a GPU asked for where there is none.
    """
    check_devices(devices)
    if devices.startswith("cpu"):
        return ["cpu"] * sum(int(part.partition(":")[2] or 1) for part in devices.split(","))
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if devices == "auto":
        return ["cuda:0"] if count else ["cpu"]
    if devices == "all":
        return [f"cuda:{i}" for i in range(count)] or ["cpu"]
    seen = f" ({_VISIBLE} is {os.environ[_VISIBLE]!r})" if _VISIBLE in os.environ else ""
    if not count:
        raise CacheError(
            f"devices {devices}: torch sees no GPU here{seen}",
            f"use cpu, or {f'unset {_VISIBLE}' if seen else 'install a CUDA build of torch'}",
        )
    numbers = [int(part.partition(":")[2] or 0) for part in devices.split(",")]
    if max(numbers) >= count:
        there = "there is 1 GPU" if count == 1 else f"there are {count} GPUs"
        known = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise CacheError(f"devices {devices}: {there}{seen}", f"name {known}: GPUs are counted among the visible ones")
    return [f"cuda:{number}" for number in numbers]


def current(device: str) -> AbstractContextManager[Any]:
    """Make a GPU the current one of this thread for a `with` block.

    Kernels launched by Triton, graphs and pinned memory go to the current device, wherever their tensors are.
    """
    if not device.startswith("cuda:"):
        return contextlib.nullcontext()
    import torch

    entered: AbstractContextManager[Any] = torch.cuda.device(device)
    return entered


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_each(processes: int) -> int:
    """Return how many threads each of so many processes computes with: its share of the cores, at least one.

    `OMP_NUM_THREADS` bounds it, as it bounds torch's own choice.
    """
    share = max(1, cores() // processes)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(asked)) if asked.isdigit() and int(asked) else share


def lost_device(error: BaseException, device: str) -> DeviceError | None:
    """Return what to say if `error` means that `device` is lost and another could go on; None if the work is at fault.

    A device is lost by its own errors and by memory that runs out, on it or on the host. Everything else is met by
    whichever device does the work: a text that is empty, weights that are missing, a disk that is full, a defect.
    """
    if isinstance(error, DeviceError):
        return error
    if isinstance(error, CacheError):
        return None
    what = " ".join(str(error).split("\n", 1)[0].split())[:160]
    if isinstance(error, MemoryError):
        return DeviceError(f"{device}: the memory of this machine ran out", "use fewer processes, then run again")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return DeviceError(f"{device} ran out of memory: {what}", "free the device's memory, or use another device")
    fault = torch is not None and isinstance(error, torch.AcceleratorError)
    if fault or (isinstance(error, RuntimeError) and _DEVICE_FAULT.search(str(error))):
        return DeviceError(
            f"{device} failed: {what}", "run again to go on, with another device if it fails again: see nvidia-smi"
        )
    return None


def does_not_fit(backbone: str, device: str) -> DeviceError:
    """Return the error of a device whose memory is too small for the weights of the backbone of this name."""
    return DeviceError(
        f"backbone {backbone} does not fit on {device}", "free the device's memory, or use --devices cpu"
    )
