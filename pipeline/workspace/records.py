"""Every JSON record that the commands keep: written with a format number and a digest, read through one check.

A record is a JSON object of one dataclass or TypedDict, with two keys more: `format`, which a later release raises when
older ones must not read it, and `digest`, over everything else. Reading gives the value with every type checked, or an
error that names the file and the key. It costs a hash of some kilobytes. The alternative, checking in each reader what
that reader happens to need, lets a changed digit through everywhere else.

Records made before there was a digest have neither key. They are checked for their types and read, which one line says.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import stat
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import cache
from cache.store import remove_stale_partials
from pipeline.errors import PipelineError

FORMAT = 1
MARKS = {"format", "digest"}
_LOG = logging.getLogger("pipeline")
OLDER = "was made before records had a digest: read as it is, like others of that time"
_AGAIN = "run the command that wrote it again"
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PLAIN: Mapping[Any, tuple[type, ...]] = {
    str: (str,), int: (int,), bool: (bool,), float: (int, float), types.NoneType: (types.NoneType,),
}  # fmt: skip
T = TypeVar("T")


class DamagedError(PipelineError):
    """A file does not hold what was written to it."""

    def __init__(self, path: Path, what: str, remedy: str = _AGAIN) -> None:
        super().__init__(f"{path} is damaged: {what}", remedy)
        self.path, self.what = path, what


class NewerError(PipelineError):
    """A file was written by a later release."""

    def __init__(self, path: Path, found: object, read: int) -> None:
        super().__init__(
            f"{path} has format {found}, this release reads format {read}",
            "use the release that wrote it, or name another --artifacts",
        )


def tell(line: str, *, once: str | None = None) -> None:
    """Say one line to whoever watches: the terminal of a command, else Python's log.

    :param once: a command says only the first of the lines that share this.
    """
    _LOG.warning(line, extra={"once": once or line})


def digest_of(content: Any) -> str:
    """Digest of a JSON value, whatever the order of its keys and the spaces between them."""
    spelled = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(spelled.encode(), digest_size=16).hexdigest()


def file_digest(content: bytes) -> str:
    """Digest of a file's bytes, 32 hex digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def place_of(path: Path) -> str:
    """Where a kept file belongs: its path below `runs`, which stays where all artifacts are moved; else its name."""
    for one in (path.resolve(), path):  # without links; of a `runs` that is a link to elsewhere with them
        if one.parts[-6:-5] == ("runs",):
            return "/".join(one.parts[-5:])
    return path.name


def check_place(path: Path, noted: str) -> None:
    """Compare where a kept file belongs with what was noted when it was written; "" of one that noted nothing.

    :raises DamagedError: if it was written elsewhere: what it says is of another run.
    """
    if noted not in ("", place_of(path)):
        raise DamagedError(path, f"it is {noted}, put in its place")


def refuse_link_to_nothing(folder: Path) -> None:
    """A missing mount is not taken for an empty folder.

    :raises DamagedError: if `folder` is a link to nothing.
    """
    if folder.is_symlink() and not folder.exists():
        raise DamagedError(folder, "it is a link to nothing", "mount what it points to, or remove the link")


def content_of(path: Path) -> bytes | None:
    """Bytes of a file; None if there is none.

    :raises DamagedError: if something else stands there: a folder, a pipe, a link to nothing.
    :raises PipelineError: if it may not be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DamagedError(path, "it is not a file", "move it away and run the command that wrote it again")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        refuse_link_to_nothing(path)
        return None
    except OSError as error:
        raise PipelineError(
            f"{path} cannot be read: {error.strerror}", "make it readable for you, or name another --artifacts"
        ) from error


def parsed(path: Path, content: bytes) -> Any:
    """The JSON value in a file's bytes.

    :raises DamagedError: if it is none.
    """
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"it is not JSON ({error})") from error


def read_record(
    path: Path, kind: type[T], *, older: Callable[[Any], Any] | None = None, again: str = _AGAIN
) -> T | None:
    """The record in a file as a value of `kind`, a dataclass or TypedDict; None if there is no file.

    :param older: turns a record made before there was a digest into today's keys, if they differ.
    :param again: what makes a damaged one anew, for the error.
    :raises DamagedError: if the content is not what was written.
    :raises NewerError: if a later release wrote it.
    :raises PipelineError: if it may not be read, or another release wrote keys that this one does not know.
    """
    content = content_of(path)
    if content is None:
        return None
    try:
        record = parsed(path, content)
        if isinstance(record, dict) and MARKS & record.keys():
            check_marks(path, record)
            return _undamaged(path, {n: v for n, v in record.items() if n not in MARKS}, kind, again)
        record = typed(older(record) if older is not None else record, kind, "")
        tell(f"{path} {OLDER}", once=OLDER)
        return typing.cast(T, record)
    except (DamagedError, TypeError) as error:
        raise DamagedError(path, getattr(error, "what", str(error)), again) from error


def _undamaged(path: Path, record: Mapping[str, Any], kind: type[T], again: str) -> T:
    """A record whose digest is right: what does not fit in it is no damage."""
    try:
        return typing.cast(T, typed(record, kind, ""))
    except TypeError as error:
        raise PipelineError(f"{path} was written by another release: {error}", again) from error


def check_marks(path: Path, record: Mapping[str, Any]) -> None:
    """Compare a record with its format number and digest.

    :raises DamagedError: if it lacks either, or the digest is of another content.
    :raises NewerError: if a later release wrote it.
    """
    number = record.get("format")
    if isinstance(number, int) and number > FORMAT:
        raise NewerError(path, number, FORMAT)
    rest = {name: value for name, value in record.items() if name not in MARKS}
    if number != FORMAT or record.get("digest") != digest_of(rest):
        raise DamagedError(path, "its content does not match its digest")


def marked(content: Mapping[str, Any]) -> dict[str, Any]:
    """A record's content with its format number and digest in front."""
    return {"format": FORMAT, "digest": digest_of(content), **content}


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record.

    :raises cache.CacheError: if the file system refuses it.
    """
    write_json(path, marked(content))


def write_json(path: Path, content: Any, *, ascii_only: bool = True) -> None:
    """Write a JSON value that a person may read; raises as `write_record`."""
    spelled = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=ascii_only)
    write_file(path, f"{spelled}\n".encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file; folders are made as needed, and what killed writers left beside it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(path.parent)
    with cache.store.atomic_file(path) as partial:
        partial.write_bytes(content)


def read_kept(path: Path, kind: type[T], *, older: Callable[[Any], Any] | None = None) -> T | None:
    """The same for what can be computed again: None, and a line that says why, if it is damaged or may not be read.

    :raises NewerError: if a later release wrote it: it is not replaced.
    """
    try:
        return read_record(path, kind, older=older)
    except NewerError:
        raise
    except PipelineError as error:
        tell(f"{error}; computed again")
        return None


def keep(write: Callable[[], None], path: Path) -> bool:
    """Write what only saves time later: where this user may not write, or the disk is full, one line says so instead.

    :returns: whether it was written.
    :raises cache.CacheError: for any other reason.
    """
    try:
        write()
        return True
    except (OSError, cache.CacheError) as error:
        cause = _refusal(error)
        if cause is None or cause.errno not in _FORBIDDEN | _FULL:
            raise
        why = "this user may not write there" if cause.errno in _FORBIDDEN else cause.strerror
        tell(f"{path} is not kept: {why}", once="not kept")
        return False


def forbidden(error: OSError | cache.CacheError) -> bool:
    """Whether what failed is writing where this user may not, or nobody may."""
    cause = _refusal(error)
    return cause is not None and cause.errno in _FORBIDDEN


def _refusal(error: OSError | cache.CacheError) -> OSError | None:
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause if isinstance(cause, OSError) else None


def typed(value: Any, kind: Any, where: str) -> Any:
    """A JSON value as a value of a type: a dataclass, TypedDict, list, tuple, mapping, union, or plain type.

    A dataclass takes no key that it does not know, a TypedDict does.

    :param where: the keys that lead to the value, for the error.
    :raises TypeError: if it is not of that type; says which key.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, inner, where)
    if origin in (list, tuple) and isinstance(value, list):
        return origin(typed(one, inner[0], f"{where}[{place}]") for place, one in enumerate(value))
    if is_dataclass(kind) and isinstance(value, dict):
        return _instance(value, kind, where)
    if typing.is_typeddict(kind) and isinstance(value, dict):
        return {**value, **_members(value, _hints(kind), set(kind.__required_keys__), where)}
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {name: typed(one, inner[1], _below(where, name)) for name, one in value.items()}
    if kind in _PLAIN and isinstance(value, _PLAIN[kind]) and (kind is bool or not isinstance(value, bool)):
        return value
    raise TypeError(f"{where or 'it'} is {_shortened(value)}, not {_named(kind)}")


def _one_of(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    for kind in kinds:
        try:
            return typed(value, kind, where)
        except TypeError as error:
            last = error
    raise TypeError(f"{where or 'it'} is {_shortened(value)}, not {' or '.join(map(_named, kinds))}") from last


def _instance(value: dict[str, Any], kind: Any, where: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(value.keys() - known.keys()):
        raise TypeError(f"{_below(where, unknown[0])} is not known")
    needed = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    return kind(**_members(value, _hints(kind), needed, where))


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)  # of a table of scores they are asked for thousands of times


def _members(value: dict[str, Any], hints: Mapping[str, Any], needed: set[str], where: str) -> dict[str, Any]:
    if missing := sorted(needed - value.keys()):
        raise TypeError(f"{_below(where, missing[0])} is missing")
    return {name: typed(value[name], hint, _below(where, name)) for name, hint in hints.items() if name in value}


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _named(kind: Any) -> str:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    origin = typing.get_origin(kind) or kind
    return words.get(kind) or ("a list" if origin in (list, tuple) else "an object")


def _shortened(value: Any) -> str:
    spelled = json.dumps(value)
    return spelled if len(spelled) <= 40 else f"{spelled[:40]}..."


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
