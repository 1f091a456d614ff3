"""What a caller asks of a backbone in place of what its files say, written behind its name as in a URL.

`minilm?pooling=cls&prompt=query%3A%20` is one string, so that whatever keeps a backbone's name (a run, `current.json`)
keeps its options with it, and a later command gets the same features. The alternative, a field for each option wherever
a name is kept, forgets one of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from cache.errors import CacheError


@dataclass(frozen=True)
class BackboneOptions:
    """None: as the files say. `end_token` is an id, an added token's text, or "none"; `endpoint` a server's URL."""

    pooling: str | None = None
    prompt: str | None = None
    end_token: str | None = None
    endpoint: str | None = None


READING = ("pooling", "prompt", "end_token", "endpoint")
"""Names of the options."""


def with_options(name: str, options: BackboneOptions) -> str:
    """Return `name` with the options behind it, replacing those that it has already.

    :raises CacheError: it has options that are not known.
    """
    plain, before = split_options(name)
    stated = asdict(before) | {key: value for key, value in asdict(options).items() if value is not None}
    kept = {key: value for key, value in stated.items() if value is not None}
    return f"{plain}?{urlencode(kept)}" if kept else plain


def local_path(name: str) -> Path | None:
    """Return the file or folder of this name; None where there is none, or no file can have such a name."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, of a home that nobody has, with a zero byte
        return None


def split_options(name: str) -> tuple[str, BackboneOptions]:
    """Return a backbone's name alone, and the options behind it; a path that is there has none.

    :raises CacheError: an option that is not known.
    """
    plain, mark, query = name.rpartition("?")
    if not mark or local_path(name) is not None:
        return name, BackboneOptions()
    try:
        stated = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        stated = {query: ""}
    known = asdict(BackboneOptions())
    if unknown := sorted(stated.keys() - known.keys()):
        raise CacheError(f"backbone {name!r}: option {unknown[0]!r}", f"known options: {', '.join(known)}")
    return plain, BackboneOptions(**stated)
