"""Arrays kept beside a run (predictions, embeddings, maps), guarded by a digest of the whole file.

A file is numpy's `.npz`, which is a zip, whose comment holds where the file belongs, so that another run's is not taken
for it, and the digest of all bytes before it: numpy and every zip program read it as ever, and nothing is parsed before
the digest matches. Reading takes the file's size in memory once more. Files made before there was a digest have no
comment; zip's own checksums guard their arrays.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.workspace.records import (
    DamagedError,
    check_place,
    content_of,
    file_digest,
    keep,
    place_of,
    tell,
    write_file,
)

_MARK = b"blake2b:"
_DIGITS = 32
_OLD = "was made before kept arrays had a digest: read as it is, like others of that time"
_END_OF_ZIP, _END_LENGTH = b"PK\x05\x06", 22


def keep_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, compress: bool = True) -> None:
    """Write arrays; where this user may not write, a line says so and nothing is kept.

    :raises cache.CacheError: if the file system refuses it for another reason.
    """
    keep(lambda: _write(path, arrays, compress), path)


def _write(path: Path, arrays: Mapping[str, NDArray[Any]], compress: bool) -> None:
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = place_of(path).encode(errors="surrogateescape") + _MARK + b"0" * _DIGITS
    body = buffer.getvalue()[:-_DIGITS]
    write_file(path, body + _digest(body))


def read_arrays(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]] | None:
    """The arrays of a file; None if there is none, and with a line that says why if it is damaged or may not be read.

    :param names: of exactly the arrays that it must hold.
    """
    try:
        content = content_of(path)
        return None if content is None else _arrays(path, content, names)
    except PipelineError as error:
        tell(f"{error}; computed again")
        return None


def _arrays(path: Path, content: bytes, names: Collection[str]) -> dict[str, NDArray[Any]]:
    body, found = content[:-_DIGITS], content[-_DIGITS:]
    if body.endswith(_MARK):
        if found != _digest(body):
            raise DamagedError(path, "its content does not match its digest")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_place(path, archive.comment[: -len(_MARK) - _DIGITS].decode(errors="surrogateescape"))
    elif content[-_END_LENGTH:].startswith(_END_OF_ZIP):
        tell(f"{path} {_OLD}", once=_OLD)
    else:
        raise DamagedError(path, "its end is missing")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if set(arrays.files) != set(names):
                raise DamagedError(path, f"it holds {', '.join(arrays.files)}, not {', '.join(names)}")
            return {name: arrays[name] for name in names}
    except DamagedError:
        raise
    except Exception as error:  # whatever zip, zlib or numpy make of a file without a digest
        raise DamagedError(path, f"it cannot be read ({error})") from error


def _digest(body: bytes) -> bytes:
    return file_digest(body).encode()
