"""Where a backbone's files lie: a folder as it is, or the hub's cache, filled from the hub when it may be asked.

The hub's cache is always looked at first and without the network, so a backbone that was fetched once works offline
and a second `embed` sends no request. The alternative, asking the hub whether there is a newer revision, would make
features change under a running project.
"""

from __future__ import annotations

import re
from pathlib import Path

from cache.errors import CacheError

_SMALL = ["*.json", "*.txt", "*.model"]
_WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_IGNORED = ["onnx/*", "openvino/*", "original/*"]


def _held(source: str, *names: str) -> Path | None:
    """Return the folder of the hub's cache that holds the configuration of a hub id, and one of `names` if any."""
    from huggingface_hub import constants

    if not (Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}").is_dir():
        return None  # known without the module that loads from the hub, which takes 0.2 s to import
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, "config.json")
    beside = not names or any(isinstance(try_to_load_from_cache(source, name), str) for name in names)
    return Path(found).parent if isinstance(found, str) and beside else None


def cached(source: str) -> Path | None:
    """Return the folder of the hub's cache that holds the configuration and weights of a hub id."""
    return _held(source, "model.safetensors", "model.safetensors.index.json")


def is_reachable(seconds: float = 3.0) -> bool:
    """Tell whether the hub may be asked and answers within some seconds."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception:  # the client raises requests', httpx' and its own; each means: no answer
        return False
    return True


def held_files(source: str) -> Path | None:
    """Return the folder with a backbone's configuration that is here already: `source` itself, or the hub's cache."""
    if Path(source).is_dir() or source.endswith(".gguf"):
        return locate(source, "")
    return _held(source) if HUB_ID.fullmatch(source) else None


def fetch_small_files(source: str) -> Path:
    """Return a folder with the configuration files of a hub id, without its weights.

    :raises CacheError: the files are neither in the cache nor to be had from the hub.
    """
    from huggingface_hub import try_to_load_from_cache

    held = _held(source)
    if held is not None and try_to_load_from_cache(source, "modules.json") is not None:  # there, or known to be absent
        return held
    return _snapshot(source, _SMALL)


def locate(source: str, alternatives: str) -> Path:
    """Return the folder that holds every file of a backbone, fetching them where the hub may be asked.

    `alternatives` ends the remedy: what works without these weights.

    :raises CacheError: there are no such files here and none can be fetched.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(source) and not folder.is_absolute():
        raise CacheError(
            f"{source} is served by an endpoint: it has no files here",
            "take a backbone whose weights and tokenizer are here for this",
        )
    if folder.suffix == ".gguf" and folder.is_file():
        from cache.backbone.gguf import dequantised

        return dequantised(folder)
    if folder.is_absolute():
        raise CacheError(f"checkpoint folder {source} is not there", "check the path")
    return cached(source) or _snapshot(source, [*_SMALL, *_WEIGHTS], alternatives)


def _snapshot(source: str, patterns: list[str], alternatives: str = "") -> Path:
    from huggingface_hub import constants, snapshot_download

    small = patterns == _SMALL
    what = "configuration and tokenizer" if small else "the weights"
    fetch = f"`hf download {source}" + (" --include '*.json' '*.txt'`" if small else "`")
    if constants.HF_HUB_OFFLINE:
        remedy = f"unset HF_HUB_OFFLINE and run again, or run {fetch} where there is a network{alternatives}"
        raise CacheError(f"{what} of {source} are not in the hub cache and HF_HUB_OFFLINE is set", remedy)
    try:
        return Path(snapshot_download(source, allow_patterns=patterns, ignore_patterns=_IGNORED))
    except Exception as error:  # the hub client raises requests', httpx' and its own; each means: not to be had
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        remedy = f"check the id and the network, or run {fetch} where there is one{alternatives}"
        raise CacheError(f"cannot fetch {source} from the hub ({reason})", remedy) from error
