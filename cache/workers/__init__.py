"""Who computes: a process per device, worker processes that tokenize, and the scheduler that hands work out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import importer

if TYPE_CHECKING:
    from cache.devices import choose_devices, current, threads_each
    from cache.workers.process_pool import Channel
    from cache.workers.scheduler import Acknowledged, Scheduler

__getattr__, __all__ = importer(
    __name__,
    {
        "cache.devices": "choose_devices current threads_each",
        "cache.workers.process_pool": "Channel",
        "cache.workers.scheduler": "Acknowledged Scheduler",
    },
)
