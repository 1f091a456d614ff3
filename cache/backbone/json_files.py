"""The JSON files beside a checkpoint's weights, read once and checked: each key has the type that is asked for.

A checkpoint folder comes from anywhere: a key may be null, a list where a number is meant, a file may be a pipe that
never ends. Every reader here names the file and the key; nothing else in this package parses these files. The
alternative, `dict.get` where a value is used, fails far from the file and without its name.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from cache.errors import CacheError, one_line

T = TypeVar("T")
D = TypeVar("D")
_REMEDY = "fetch the checkpoint again"


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, None where there is no such file.

    :raises CacheError: it is no regular file, is not JSON, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CacheError(f"{path} is not a regular file", "replace it by the file of the checkpoint")
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError, RecursionError) as error:
        raise CacheError(f"{path} cannot be read: {one_line(error)}", _REMEDY) from error


@dataclass(frozen=True)
class JsonObject:
    """The object in a JSON file, or one inside it: `where` names it in errors.

    A value of another type than is asked for is a CacheError.
    """

    where: str
    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> JsonObject | None:
        """Return the object that a file holds, None where there is no such file.

        :raises CacheError: the file cannot be read, or holds no object.
        """
        values = read_json(path)
        return None if values is None else cls.of(str(path), values)

    @classmethod
    def read_or_empty(cls, path: Path) -> JsonObject:
        """Return the same, an object without keys where there is no such file."""
        return cls.read(path) or cls(str(path), {})

    @classmethod
    def of(cls, where: str, values: Any) -> JsonObject:
        """Return `values`, which must be an object.

        :raises CacheError: it is something else.
        """
        if not isinstance(values, dict):
            raise CacheError(f"{where} holds {_shown(values)}, not an object of keys and values", _REMEDY)
        return cls(where, values)

    def text(self, key: str, default: str | None = None) -> str | None:
        """Return a string; `default` where the key is missing or null."""
        return self._stated(key, str, "a string", default)

    def texts(self, key: str) -> list[str]:
        """Return a list of strings; empty where the key is missing or null."""
        found: list[str] = self._stated(key, list, "a list of strings", [])
        if not all(isinstance(one, str) for one in found):
            self._refuse(key, "a list of strings")
        return found

    def integer(self, key: str, least: int = 0) -> int | None:
        """Return a whole number of at least `least`; None where the key is missing or null."""
        value = self.values.get(key)
        if value is None:
            return None
        whole = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not whole or value != int(value) or value < least:
            self._refuse(key, f"a whole number of at least {least}")
        return int(value)

    def count(self, key: str) -> int:
        """Return a whole number above 0 that must be there."""
        found = self.integer(key, least=1)
        if found is None:
            self._refuse(key, "a whole number of at least 1")
        return found

    def flag(self, key: str, default: bool = False) -> bool:
        """Return true or false; `default` where the key is missing or null."""
        return self._stated(key, bool, "true or false", default)

    def object(self, key: str) -> JsonObject:
        """Return an object; one without keys where the key is missing or null."""
        value = self.values.get(key)
        return JsonObject.of(f"{self.where}: {key}", {} if value is None else value)

    def _stated(self, key: str, kind: type[T], wanted: str, default: D) -> T | D:
        value = self.values.get(key)
        if value is not None and not isinstance(value, kind):
            self._refuse(key, wanted)
        return default if value is None else value

    def _refuse(self, key: str, wanted: str) -> NoReturn:
        raise CacheError(f"{self.where}: {key} is {_shown(self.values.get(key))}, not {wanted}", _REMEDY)


def text_config(folder: Path) -> JsonObject:
    """Return the part of a checkpoint's config.json about text, which a model of several kinds of input has inside it.

    :raises CacheError: the file cannot be read, or holds no object.
    """
    config = JsonObject.read_or_empty(folder / "config.json")
    return config.object("text_config") if "text_config" in config.values else config


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
