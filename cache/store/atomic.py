"""Files and folders that are whole or absent, whatever kills the process or fills the disk.

The trick is as old as Unix: write under another name beside the target, flush to the disk, rename, flush the folder.
`rename` replaces in one step, so that a reader sees the old content or the new, never a part. It costs two fsyncs a
file. The alternative, writing in place, leaves a file that looks finished after a kill.

A kill leaves the other name behind. That name says which process wrote it (machine, process id), so that
`remove_stale_partials` can tell a dead writer's remains from a living writer's work: on the same machine by asking for
the process, elsewhere by an hour without a write (a shard is written in one go, in seconds). Whoever writes into a
folder removes what the dead left there.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from cache.errors import CacheError, file_error, file_errors

STALE_SECONDS = 3600.0
_ERROR_NUMBER = re.compile(r"(?:os error|errno ?=?|Errno) (\d+)")  # as Rust, HDF5 and Python write it
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_REFUSALS = {*_OF_WRITING, errno.EIO, errno.EACCES, errno.EPERM}
_PARTIAL = re.compile(r"^\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{12}\.partial$")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield the path of an empty file beside `path`; write into it, and on leaving it becomes `path`.

    After an exception, from the body too, `path` is what it was and the other file is gone. The file has the mode that
    the umask gives, whatever the body's library made of it.

    :raises CacheError: if the file system refuses a step (full, read-only, forbidden, folder removed), also one of the
        body that writes this file, by whichever library.
    """
    with _written(path) as partial:
        partial.open("xb").close()
        mode = partial.stat().st_mode
        try:
            yield partial
            partial.chmod(mode)
            flush(partial)
            partial.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        flush(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; fill it, and on leaving it becomes `path`, which must not exist by then.

    After an exception, from the body too, `path` is what it was and the other folder is gone. Modes are those that the
    umask gives.

    :raises CacheError: if the file system refuses a step, or `path` exists and is not an empty folder.
    """
    there = f"{path} is there already", "name another folder, or remove it first"
    with file_errors("read", path):
        filled = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if filled:
        raise CacheError(*there)
    with _written(path if path.name else path.absolute()) as partial:
        partial.mkdir()
        mode = partial.stat().st_mode
        try:
            yield partial
            for entry in sorted(partial.rglob("*"), reverse=True):
                if not entry.is_symlink():
                    entry.chmod(mode if entry.is_dir() else mode & 0o666)
                    flush(entry)
            flush(partial)
            try:
                partial.rename(path)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise CacheError(*there) from error
                raise
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        flush(path.parent)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Yield the other name of `path`, once what killed writers left beside it is gone; explain what is refused."""
    partial = _partial_name(path)
    _clear_once(path.parent)
    try:
        yield partial
    except CacheError:
        raise
    except Exception as error:
        refused = error if isinstance(error, OSError) else _refusal_in(error, partial)
        if refused is None or _concerns_another_file(refused, partial, path):
            raise
        if refused is not error:
            refused.__cause__ = error
        raise file_error("write", path, refused) from refused


def _refusal_in(error: Exception, partial: Path) -> OSError | None:
    """Return the operating system's error that a library's exception (of safetensors, polars, HDF5) speaks of.

    Of a missing file only where the folder is gone: it may be another file, which the body reads. Where a message
    has no number, its words or a disk without room tell.
    """
    if found := _ERROR_NUMBER.search(str(error)):
        number = int(found[1])
        known = number in _REFUSALS or (number == errno.ENOENT and not partial.parent.exists())
        return OSError(number, os.strerror(number)) if known else None
    for number in _OF_WRITING:
        if os.strerror(number) in str(error):
            return OSError(number, os.strerror(number))
    with contextlib.suppress(OSError):
        if os.statvfs(partial.parent).f_bavail == 0:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


@functools.cache
def _clear_once(folder: Path) -> None:
    """Remove what killed processes left in `folder`, on this process's first write there."""
    remove_stale_partials(folder)


def remove_folder(path: Path) -> None:
    """Remove the folder `path` so that no part of it is ever seen under its name.

    :raises CacheError: if the file system refuses it.
    """
    partial = _partial_name(path)
    with file_errors("remove", path):
        path.rename(partial)
        flush(path.parent)
        shutil.rmtree(partial)


def flush(path: Path) -> None:
    """Wait until the content of the file, or the entries of the folder, `path` are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # some network file systems cannot flush a folder, and need not: their rename is already on the server
        if not (error.errno == errno.EINVAL and path.is_dir()):
            raise
    finally:
        os.close(handle)


def stale_partials(folder: Path) -> list[Path]:
    """Return what killed processes left in `folder`, sorted: never a name that a living process may still write."""
    return [path for path in sorted(folder.iterdir()) if path.name.endswith(".partial") and _is_stale(path)]


def remove_stale_partials(folder: Path) -> int:
    """Remove what killed processes left in `folder`; return how many entries went."""
    removed = 0
    with contextlib.suppress(OSError):
        for path in stale_partials(folder):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed += 1
    return removed


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(6)}.partial")


def _concerns_another_file(error: OSError, partial: Path, path: Path) -> bool:
    """Return whether `error` comes from a file that the body of the `with` block read or wrote besides."""
    name = str(error.filename2 or error.filename or partial)  # of a copy the second is written
    return not name.startswith((str(partial), str(path))) and name != str(path.parent)


def _is_stale(path: Path) -> bool:
    parts = _PARTIAL.match(path.name)
    if parts is None:
        return False
    if parts["machine"] == _machine():
        return not _is_alive(parts["process"])
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False


def _is_alive(process: str) -> bool:
    """Return whether a process of this machine may still write: not one that ended and that nobody asked for yet."""
    try:
        state = Path("/proc", process, "stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True
    return state not in (b"Z", b"X")


@functools.cache
def _machine() -> str:
    """Return 8 digits that differ between boots, hosts and process namespaces: where a process id means one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        space = str(Path("/proc/self/ns/pid").readlink()).encode()
    except OSError:  # no Linux: no two processes count as neighbours, so that age alone decides
        boot, space = secrets.token_bytes(16), b""
    return hashlib.blake2b(boot + space, digest_size=4).hexdigest()
