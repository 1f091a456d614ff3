"""What comes through a pipe from another process."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection


def incoming(connection: Connection) -> Iterator[Any]:
    """Yield what comes in, until the other end is closed.

    An error of the pipe is its end; one of unpickling, an OSError too (a library that cannot be loaded), is raised.
    """
    while True:
        try:
            sent = connection.recv_bytes()
        except (EOFError, OSError):
            return
        yield pickle.loads(sent)
