"""Rows that take seconds to parse out of an installed package, kept under the digest of the package's files.

The parse of ICD-10-CM takes two to four seconds of every command, of which a stored score needs none. What is kept is
never older than its source: its name holds the digest of every file of the package, of the reader's number and of its
settings, so that another release, an edited file or another reader has another name. The digest of the content stands
in front of it: a damaged file is parsed again and replaced. Digests of 10 MB take 15 ms.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from data.sources.download import write_whole

_DIGEST = 16


def kept_rows(
    parse: Callable[[], pl.DataFrame], package: Path, settings: Sequence[object], folder: Path
) -> pl.DataFrame:
    """Return what `parse` returns, from `folder` if it is kept there, else keep it, where this user may write there.

    :param package: folder of the package's files, all of which determine the rows.
    :param settings: what else does: the number of the reader, its arguments.
    """
    path = folder / f"{package.name}-{_source_digest(package, settings)}.rows"
    found = _read(path)
    if found is not None:
        return found
    frame = parse()
    body = io.BytesIO()
    frame.write_parquet(body)
    with contextlib.suppress(OSError):  # a full disk costs the next command its seconds
        write_whole(path, _digest(body.getvalue()) + body.getvalue())
    return frame


def _source_digest(package: Path, settings: Sequence[object]) -> str:
    content = hashlib.blake2b(repr(tuple(settings)).encode(), digest_size=_DIGEST)
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content.update(hashlib.blake2b(path.read_bytes()).digest() + str(path.relative_to(package)).encode())
    return content.hexdigest()


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()


def _read(path: Path) -> pl.DataFrame | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body = content[_DIGEST:]
    return pl.read_parquet(io.BytesIO(body)) if content[:_DIGEST] == _digest(body) else None
