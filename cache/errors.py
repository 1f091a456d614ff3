"""The one exception that this package raises for what its caller, a disk or a damaged file did wrong.

It has two lines: the problem (which file, row or option, and the offending value) and the way out. Everything else that
escapes from here is a defect of this package. The alternative, letting `OSError` and h5py's errors through, leaves the
person who reads the message with an errno and no file.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_REPAIR = "run `pipeline cache verify --repair`: it drops what is damaged, and the next embed computes it again"
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}


class CacheError(ValueError):
    """Something that the caller can put right: `str(error)` says what is wrong, `error.remedy` what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Keep the two lines apart, so that a command prints the second below the first."""
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[CacheError], tuple[Any, ...]]:
        """Survive the way from a worker process: exceptions are rebuilt from these arguments."""
        return type(self), (self.problem, self.remedy)


class DamageError(CacheError):
    """A file of a store does not hold what was written to it; `cache.verify` finds how far that goes and repairs it."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} is damaged: {what}", _REPAIR)
        self.path = path
        self.what = what

    def __reduce__(self) -> tuple[type[CacheError], tuple[Any, ...]]:
        return type(self), (self.path, self.what)


class DeviceError(CacheError):
    """One device, or the process that feeds it, cannot go on: another could do its work, where there is another."""


def one_line(error: BaseException, most: int = 200) -> str:
    """Return what a library's exception says, in one line of so many characters; its class where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def file_error(action: str, path: Path, error: OSError) -> CacheError:
    """Return the `CacheError` for an operating system error: `action` is what failed, such as "write"."""
    problem = f"cannot {action} {path}: {error.strerror or error}"
    if error.errno in _FULL:
        return CacheError(problem, "free some space or name another folder, then run again: what was committed is kept")
    if error.errno in _FORBIDDEN:
        return CacheError(problem, "name a folder that this user may write to, or change its permissions")
    if error.errno in _GONE:
        return CacheError(problem, "the folder is not there or went away meanwhile: check the path, then run again")
    if error.errno == errno.EISDIR:
        return CacheError(problem, "a folder stands where this file belongs: move it away, then run again")
    return CacheError(problem, "check the disk or file system that holds this file, then run again")


@contextlib.contextmanager
def file_errors(action: str, path: Path) -> Iterator[None]:
    """Raise the `CacheError` of an operating system error that a `with` block meets, as `file_error` makes it."""
    try:
        yield
    except OSError as error:
        raise file_error(action, path, error) from error
