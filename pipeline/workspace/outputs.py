"""Where a command writes is looked at before the work, not after it.

The one sure way to know that a file can be written is to write one: an empty file beside the target, gone at once. It
finds a read-only file system, a folder of another user, a name that is too long. A disk that fills up meanwhile, or a
folder that vanishes, is found when the result is written, by `cache.store.atomic_file`, which names the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cache
from cache.store import remove_stale_partials
from pipeline.errors import PipelineError
from pipeline.workspace.records import keep

if TYPE_CHECKING:
    import polars as pl

_NOTE = "semantic-zoom"


def check_output(path: Path, *, force: bool | None = False, inputs: Iterable[Path] = (), own: bool = False) -> None:
    """Refuse a file or folder that could not be written, or that would replace something unasked.

    Folders above it are made; what killed writers left beside it is removed.

    :param force: whether a file that stands there may be replaced; None of a command that has no `--force`. A folder
        never is.
    :param inputs: what the command reads, which is never replaced.
    :param own: whether what stands there was made by the same command from the same input: it is made again.
    :raises PipelineError: if something stands there, or it is an input.
    :raises cache.CacheError: if nothing can be written there.
    """
    for read in inputs:
        if os.path.lexists(path) and path.exists() and read.exists() and path.samefile(read):
            raise PipelineError(f"{path} is what is read", "name another --output")
    if path.is_dir():
        raise PipelineError(f"{path} is a folder that is already there", "name another --output, or move it away first")
    if os.path.lexists(path) and not (force or own):
        other = "move it away first" if force is None else "give --force to replace it"
        raise PipelineError(f"{path} is already there", f"name another --output, or {other}")
    _make_folders(path.parent)
    remove_stale_partials(path.parent)
    check_writable(path)


def check_writable(path: Path) -> None:
    """Write an empty file beside `path`, as is done at the end, and remove it; `path` itself is not touched.

    :raises cache.CacheError: if the file system refuses it.
    """
    try:
        with cache.store.atomic_file(path):
            raise _DoneError
    except _DoneError:
        return


def check_kept(path: Path) -> None:
    """Look, before the work, whether what only saves time later can be written (`records.keep`); folders are made.

    Where this user may not write, or the disk is full, a line says that it will not be.

    :raises PipelineError: if a folder stands there.
    :raises cache.CacheError: if the file system refuses it for another reason.
    """

    def look() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path)

    if path.is_dir():
        raise PipelineError(f"{path} is a folder, and a result is kept there", "move it away first")
    keep(look, path)


def made_by(path: Path) -> dict[str, Any] | None:
    """What `write_table` noted of the command that wrote a Parquet file; None if it is no such file."""
    import polars as pl

    try:
        found = json.loads(pl.read_parquet_metadata(path)[_NOTE])
    except (Exception, pl.exceptions.PanicException):  # absent, of another kind, damaged: not ours
        return None
    return found if isinstance(found, dict) else None


def write_table(path: Path, frame: pl.DataFrame, facts: Mapping[str, Any]) -> None:
    """Write a Parquet file whose metadata says which command made it of what, so that a rerun knows it as its own.

    A bit of the data that flips later is not noticed: polars writes no page checksums, which neither it nor, unless
    asked, pyarrow compares on reading. Keep a digest of the file (``sha256sum``) where that matters.

    :raises cache.CacheError: if the file system refuses it.
    """
    with cache.store.atomic_file(path) as partial:
        frame.write_parquet(partial, metadata={_NOTE: json.dumps(dict(facts))})


class _DoneError(Exception):
    """Leaves the block without a file."""


def _make_folders(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise PipelineError(f"{folder} is a file, not a folder", "name another --output") from error
    except OSError as error:
        raise PipelineError(
            f"cannot make the folder {folder}: {error.strerror}", "name an --output in a folder that you may write to"
        ) from error
