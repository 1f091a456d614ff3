"""Where a source lies: a path, a pattern of paths, or a URL, and what its name says.

Whatever exists as a file is meant literally, brackets and all; only what does not exist may be a pattern. Names that no
file can have (too long, with a zero byte, of an unknown home) are files that are not there, not errors of the system.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from data.errors import DataError, shortened

COMPRESSIONS = (".gz", ".zst")
"""Suffixes that polars looks through."""


def is_url(source: str) -> bool:
    """Whether `source` names a scheme, such as ``hf://``, ``s3://`` or ``https://``."""
    return "://" in source


def is_there(source: str) -> bool:
    """Whether a local file or folder has this name."""
    try:
        return _local(source).exists()
    except (OSError, ValueError):
        return False


def located(source: str) -> str:
    """Return where polars finds `source`: a URL as it is, a path with its home folder spelled out.

    :raises DataError: if it is a directory, or neither a file nor a pattern that matches one.
    """
    if is_url(source):
        return source
    path = _local(source)
    if not is_there(source) and not _matches(path):
        raise DataError(
            f"there is no file {shortened(source)}", "check the path, or see the built-in names: pipeline data list"
        )
    if is_there(source) and path.is_dir():
        raise DataError(f"{source} is a directory, not a file", "name a file in it, or a pattern such as DIR/*.csv")
    return str(path)


def is_pattern(place: str) -> bool:
    """Whether polars should expand `place`."""
    return is_url(place) or not is_there(place)


def suffix_of(source: str) -> str:
    """Return the suffix that says the kind of file, lower case, looking through a compression's; "" if none does."""
    return _name(source).suffix.lower()


def stem(source: str) -> str:
    """Return the file's name without folder and suffixes: what its dataset is called."""
    return _name(source).stem


def _name(source: str) -> PurePosixPath:
    name = PurePosixPath(PurePosixPath(urlsplit(source).path if is_url(source) else source).name)
    return name.with_suffix("") if name.suffix.lower() in COMPRESSIONS else name


def _local(source: str) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:  # ~somebody who has no home here
        return Path(source)


def _matches(pattern: Path) -> bool:
    """Whether any file matches a pattern such as ``part-*.csv``."""
    try:
        return any(Path(pattern.anchor or ".").glob(str(pattern.relative_to(pattern.anchor))))
    except (OSError, ValueError):
        return False
