"""The two files of a head on disk, read and checked without torch: whether a run can be used is asked by every command.

`check` finds what a changed bit does, in the milliseconds that a digest takes; `heads.checkpoint.load`, which makes the
head, looks at all that a digest cannot vouch for.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heads.errors import HeadsError

FORMAT = 2
WEIGHTS, CONFIG = "head.safetensors", "config.json"

_log = logging.getLogger("heads")


def check(folder: str | Path) -> bool:
    """Compare a head's files with the digest they were saved with; False where there is none and only `load` can tell.

    :raises HeadsError: if a file is missing, damaged, or of a newer format.
    """
    config = read_config(Path(folder) / CONFIG)
    if "digest" in config:
        check_digest(Path(folder), config, file_bytes(Path(folder) / WEIGHTS))
    return "digest" in config


def read_config(path: Path) -> dict[str, Any]:
    """Read config.json.

    :raises HeadsError: if it is missing, damaged, or of a newer format.
    """
    content = file_bytes(path)
    try:
        config = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise damaged(path, str(error)) from error
    found = config.get("format") if isinstance(config, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise HeadsError(
            f"checkpoint {path} is of format {found}, and this version reads up to {FORMAT}", "update semantic-zoom"
        )
    if found not in range(1, FORMAT + 1):
        raise damaged(path, f"is not of format {FORMAT}")
    return dict(config)


def file_bytes(path: Path) -> bytes:
    """Read a file of a head.

    :raises HeadsError: if it is missing or may not be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise damaged(path, str(error.strerror)) from error
    except OSError as error:
        raise HeadsError(
            f"checkpoint {path} cannot be read: {error.strerror or error}", "see to its permissions"
        ) from error


def digest_of(weights: bytes, config: Mapping[str, Any]) -> str:
    """BLAKE2b over the weights file and everything in the configuration but the digest itself."""
    rest = {name: value for name, value in config.items() if name != "digest"}
    content = hashlib.blake2b(weights, digest_size=16)
    spelled = json.loads(json.dumps(rest))  # as it is read back: a key that is a number becomes a string
    content.update(json.dumps(spelled, ensure_ascii=False, sort_keys=True).encode())
    return content.hexdigest()


def check_digest(folder: Path, config: Mapping[str, Any], weights: bytes) -> None:
    """Refuse files that do not match their digest; say so where there is none.

    :raises HeadsError: if they do not.
    """
    if "digest" not in config:
        _log.warning("%s was saved without a digest: whether it is undamaged cannot be checked", folder)
    elif config["digest"] != digest_of(weights, config):
        raise damaged(folder, f"{WEIGHTS} and {CONFIG} do not match the digest they were saved with")


def damaged(path: Path, problem: str) -> HeadsError:
    """The error of a file that is not what was saved."""
    one_line = " ".join(problem.split())
    return HeadsError(f"checkpoint {path}: {one_line}", "fit the head again (`pipeline fit-head` does so)")
