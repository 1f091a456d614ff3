"""Where a source lies: a path, a pattern of paths, or a URL, and what its name says.

Whatever exists as a file is meant literally, brackets and all; only what does not exist may be a pattern. Names that no
file can have (too long, with a zero byte, of an unknown home) are files that are not there, not errors of the system.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from data.errors import DataError, shortened

_LINES = re.compile(r"\w+\.(in|out)|(seq|texts?|sentences?|utterances?|labels?|intents?)")

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zip", ".zst")
"""Suffixes of compressed files; the kind of file is told by the suffix before."""


def is_url(source: str) -> bool:
    """Whether `source` names a scheme, such as ``hf://``, ``s3://`` or ``https://``."""
    return "://" in source


def is_there(source: str) -> bool:
    """Whether a local file or folder has this name."""
    try:
        return local(source).exists()
    except (OSError, ValueError):
        return False


def in_archive(source: str) -> tuple[str, str] | None:
    """Return the ``.zip`` file and the name in it that ``archive.zip/folder/file.csv`` means, or None."""
    if ".zip/" not in source or is_url(source):
        return None
    archive, _, name = source.partition(".zip/")
    return (archive + ".zip", name) if name and is_there(archive + ".zip") else None


def located(source: str) -> str:
    """Return where `source` is read from: a URL as it is, a path with its home folder spelled out.

    :raises DataError: if it is a directory or not there, or no URL.
    """
    if is_url(source):
        try:
            urlsplit(source)
        except ValueError as error:
            raise DataError(f"{shortened(source)} is no URL: {error}", "check its spelling") from error
    if is_url(source) or in_archive(source):
        return source
    if not is_there(source):
        raise DataError(
            f"there is no file {shortened(source)}",
            f"{_similar(source)}check the path, or see the built-in names: pipeline data list",
        )
    path = local(source)
    if path.is_dir():
        raise DataError(f"{source} is a directory, not a file", "name a file in it, or a pattern such as DIR/*.csv")
    return str(path)


def _similar(source: str) -> str:
    """The question whether a file of nearly that name, in the same folder, is meant; nothing where there is none."""
    path = local(source)
    try:
        near = difflib.get_close_matches(path.name, [one.name for one in path.parent.iterdir()], n=1)
    except (OSError, ValueError):  # no such folder, none that may be read, no path at all
        return ""
    return f"did you mean {shortened(str(path.parent / near[0]))}? or " if near else ""


def suffix_of(source: str) -> str:
    """Return the suffix that says the kind of file, lower case, looking through a compression's; "" if none does.

    Files of lines that go by usual names, such as ``seq.in`` beside ``label``, are ``.txt``.
    """
    name = _name(source)
    return ".txt" if _LINES.fullmatch(name.name.lower()) else name.suffix.lower()


def compression_of(source: str) -> str:
    """Return the suffix of a compressed file, lower case; "" if `source` is none."""
    suffix = _base(source).suffix.lower()
    return suffix if suffix in COMPRESSIONS else ""


def stem(source: str) -> str:
    """Return the file's name without folder and suffixes: what its dataset is called."""
    return _name(source).stem


def _base(source: str) -> PurePosixPath:
    return PurePosixPath(PurePosixPath(urlsplit(source).path if is_url(source) else source).name)


def _name(source: str) -> PurePosixPath:
    name = _base(source)
    return name.with_suffix("") if name.suffix.lower() in COMPRESSIONS else name


def local(source: str) -> Path:
    """Return the path that `source` means, with the home folder spelled out where there is one."""
    try:
        return Path(source).expanduser()
    except RuntimeError:  # ~somebody who has no home here
        return Path(source)
