"""A published file, found or fetched: from the user's own folder, else from where it was fetched before, else now.

A file counts only with the SHA-256 that was recorded when its loader was written, so a dataset id means the same rows
everywhere. It is fetched under another name, flushed and renamed: what carries the file's name is whole. The standard
library's urllib is enough for two files of 2.5 MB; a client library would be one more dependency.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from data.errors import DataError

SECONDS = 30
"""Timeout of a connection that sends nothing."""


@dataclass(frozen=True)
class PublishedFile:
    """A file of a dataset: folder and name it has here, where its publisher keeps it, and its SHA-256 (hex)."""

    dataset: str
    name: str
    url: str
    sha256: str


def obtain(file: PublishedFile, folder: Path | None = None) -> Path:
    """Return the path of a checked copy of `file`, downloading it into `folder` if there is none.

    Looked for in ``$PIPELINE_DATA/<dataset>/``, ``$PIPELINE_DATA/``, then ``folder/<dataset>/``. `folder` defaults to
    ``$PIPELINE_ARTIFACTS/data``, else ``artifacts/data``.

    :raises DataError: if a file of the user's has other content, or none is there and the download fails.
    """
    own = os.environ.get("PIPELINE_DATA")
    for path in (Path(own, file.dataset, file.name), Path(own, file.name)) if own else ():
        if path.is_file():
            if (found := _sha256(path)) != file.sha256:
                raise DataError(
                    f"{path} has SHA-256 {found[:12]}..., not {file.sha256[:12]}... as published",
                    f"replace it by {file.url}, or unset PIPELINE_DATA to have that downloaded",
                )
            return path
    folder = folder if folder is not None else Path(os.environ.get("PIPELINE_ARTIFACTS") or "artifacts", "data")
    kept = folder / file.dataset / file.name
    if not (kept.is_file() and _sha256(kept) == file.sha256):
        _download(file, kept)
    return kept


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "make the file readable") from error


def _download(file: PublishedFile, target: Path) -> None:
    """Fetch `file` to `target`."""
    content = _fetch(file, target)
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise DataError(
            f"{file.url} gave {len(content):,} bytes with SHA-256 {found[:12]}..., not {file.sha256[:12]}...",
            f"try again, or put the published {file.name} at {target}",
        )
    try:
        write_whole(target, content)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}", "free space or name another folder") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, through a partial file beside it, which is removed on failure.

    :raises OSError: if the file system refuses a step.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".partial", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(partial).replace(path)
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)


def _fetch(file: PublishedFile, target: Path) -> bytes:
    try:
        with urllib.request.urlopen(file.url, timeout=SECONDS) as answer:
            content: bytes = answer.read()
            return content
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{file.name} of {file.dataset} is not here and cannot be downloaded from {file.url}: {reason}",
            f"put {file.name} at {target}, or at $PIPELINE_DATA/{file.dataset}/{file.name}",
        ) from error
