"""Which dtype the backbone computes in: the one asked for, that of the store there is, else the device's fastest.

bfloat16 is chosen where it is multiplied natively: on such hardware it is two to sixteen times faster and moves a
normalised feature by less than float16 storage of another machine's float32 would be noticed in any accuracy; where it
is emulated it is slower than float32. The dtype that a store keeps is another matter: `cache.plan` settles it, and
`cache.store.dtypes` reads and writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from cache.devices import choose_devices
from cache.errors import CacheError
from cache.store.description import DESCRIPTION_FILE, read_description

DTYPES = ("float32", "bfloat16")


def choose_dtype(
    asked: str,
    backbone: str,
    root: Path,
    origins: Collection[str],
    store_dtype: str | None,
    fastest: Callable[[], tuple[str, str]],
) -> tuple[str, tuple[str, ...]]:
    """Return the dtype to compute in, and a line for the choice if it was left open.

    :param asked: "float32", "bfloat16", or "auto": that of the stores which these features already have below `root`.
    :param backbone: its name, with which the names of its stores begin.
    :param origins: what identifies the features (`cache.backbone.fingerprint.identity`), one per layer.
    :param store_dtype: that of the stores to follow; None for any.
    :param fastest: gives a device and the dtype that it multiplies natively; called where no store is there to follow.
    :raises CacheError: an unknown dtype; several stores to choose between; a damaged store of this backbone.
    """
    if asked != "auto":
        if asked not in DTYPES:
            raise CacheError(f"dtype {asked!r}", f"use one of auto, {', '.join(DTYPES)}")
        return asked, ()
    found: dict[str, list[str]] = {}
    for path in sorted(root.glob(f"*/{DESCRIPTION_FILE}")):
        try:
            description = read_description(path.parent)
        except CacheError:
            if path.parent.name.startswith(backbone):
                raise
            continue  # a damaged store of another backbone is none to follow
        if description.get("origin") in origins and store_dtype in (None, description["store_dtype"]):
            found.setdefault(str(description["compute_dtype"]), []).append(path.parent.name)
    if len(found) > 1:
        names = ", ".join(name for group in found.values() for name in group)
        raise CacheError(
            f"dtype auto: {root} has several stores of {backbone}: {names}",
            f"say which with --dtype {' or --dtype '.join(found)}",
        )
    if found:
        (followed,) = found
        return followed, (f"dtype {followed}: that of the store {found[followed][0]}",)
    device, native = fastest()
    return native, (f"dtype {native}: the fastest on {device} (--dtype float32 is more exact)",)


def fastest(devices: str) -> tuple[str, str]:
    """Return the first device that `devices` means, and the dtype that it multiplies natively.

    :raises CacheError: as `choose_devices` does.
    """
    device = choose_devices(devices)[0]
    return device, native_dtype(device)


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
