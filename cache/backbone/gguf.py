"""A GGUF file as a backbone: dequantised once, through transformers, into an ordinary checkpoint folder.

That folder lies in the user's cache under the SHA-256 of the file and the versions of what made it, so it is made once
wherever the file lies, and every later call is as fast as for any checkpoint. Tokens, end token, pooling and maximum
length come from the file's own metadata; the fingerprint from its bytes. The weights are kept in float32, which holds
every dequantised value exactly: eight times the size of a 4-bit file. The alternative, dequantising in every process,
takes as long as embedding some thousand texts, each time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cache.backbone.quiet import quiet_transformers
from cache.errors import CacheError, file_error, file_errors, one_line
from cache.store.atomic import atomic_folder

ORIGIN_FILE = "gguf.json"
_CONVERTER = 1  # to be raised where `_convert` writes something else than before
_POOLINGS = {1: "pooling_mode_mean_tokens", 2: "pooling_mode_cls_token", 3: "pooling_mode_lasttoken"}
_LEFT_OUT = {"quantization_config", "_name_or_path", "_model_name_or_path"}
_DIGITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_PATTERNS = {"qwen2": _DIGITS % "", "llama-bpe": _DIGITS % "{1,3}", "llama3": _DIGITS % "{1,3}"}
"""Expressions by which byte-level tokenizers cut a text, by the name in `tokenizer.ggml.pre`.

Of Qwen 2, 2.5 and 3; and of Llama 3, GPT-4 (cl100k) and what derives from them.
"""


def gguf_in(folder: Path) -> Path | None:
    """Return the one GGUF file of a folder without a config.json; None where there is none.

    :raises CacheError: there are several.
    """
    files = sorted(folder.glob("*.gguf"))
    if (folder / "config.json").exists() or not files:
        return None
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise CacheError(f"backbone {folder} holds {len(files)} GGUF files: {names}", "name one of them")
    return files[0]


def dequantised(path: Path) -> Path:
    """Return the checkpoint folder made of a GGUF file, making it where it is not there yet.

    :raises CacheError: the packages for it are missing; the file is damaged, or of an architecture that transformers
        does not read from GGUF; the cache cannot be written.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semantic-zoom" / "gguf"
    digest = _digest_of(path)
    made = root / f"{digest[:32]}-{_CONVERTER}-{version('transformers')}"
    if not made.is_dir():
        try:
            _make(path, made, digest)
        except CacheError:
            if not made.is_dir():  # else another process made it meanwhile
                raise
    return made


def _make(path: Path, made: Path, digest: str) -> None:
    _check_packages()
    metadata = _metadata(path)
    with file_errors("create", made.parent):
        made.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(made) as partial:
        try:
            _convert(path, partial, metadata)
        except CacheError:
            raise
        except OSError as error:
            raise file_error("write", partial, error) from error
        except Exception as error:  # each reader raises its own
            raise CacheError(
                f"{path} ({metadata.get('general.architecture')}) cannot be loaded through transformers: "
                f"{one_line(error)}",
                "name an architecture that transformers reads from GGUF, or the model's own folder",
            ) from error
        (partial / ORIGIN_FILE).write_text(json.dumps({"sha256": digest, "file": path.name}))


def _digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, read once in a process while its times stay what they are."""
    with file_errors("read", path):
        state = path.stat()
        return _digest(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@functools.lru_cache(maxsize=8)
def _digest(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_packages() -> None:
    import importlib.util

    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise CacheError(f"reading a GGUF file needs {' and '.join(missing)}", f"pip install {' '.join(missing)}")


def _metadata(path: Path) -> dict[str, Any]:
    """Return the file's metadata without its vocabulary."""
    from gguf import GGUFReader

    try:
        fields = GGUFReader(str(path)).fields
        return {
            name: field.contents()
            for name, field in fields.items()
            if not name.startswith("tokenizer.ggml.") or len(field.data) == 1
        }
    except Exception as error:  # numpy's and struct's, wherever the file is cut
        raise CacheError(
            f"{path} is no GGUF file that can be read ({one_line(error)})", "fetch the file again"
        ) from error


def _convert(path: Path, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write configuration, weights in float32, tokenizer and pooling of a GGUF file into `folder`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoTokenizer, __version__

    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):  # a bar that nothing else turns off
        model, report = AutoModel.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        if unread := sorted(report["missing_keys"]):  # transformers draws them at random
            raise CacheError(
                f"transformers {__version__} finds no {unread[0]} in {path} ({len(unread)} missing)",
                "pip install -U transformers gguf; if they find none either, download the file again",
            )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    config = {key: value for key, value in model.config.to_dict().items() if key not in _LEFT_OUT}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    backend = tokenizer.backend_tokenizer
    _cut_as_stated(backend, str(metadata.get("tokenizer.ggml.pre")))
    _put_around(backend, metadata)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    _write_pooling(folder, metadata, int(config["hidden_size"]))


def _cut_as_stated(backend: Any, name: str) -> None:
    """Set the pre-tokenizer that the file names, which transformers does not read."""
    from tokenizers import Regex, pre_tokenizers

    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in SPLIT_PATTERNS:
        split = pre_tokenizers.Split(Regex(SPLIT_PATTERNS[name]), behavior="isolated", invert=False)
        by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, by_bytes])
    elif name in ("smollm", "starcoder", "refact", "command-r"):
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    elif name == "gpt-2":
        backend.pre_tokenizer = plain


def _put_around(backend: Any, metadata: Mapping[str, Any]) -> None:
    """Put the first and the end token around a text where the file says so, and neither where it says not to."""
    from tokenizers import processors

    names = {"bos": "tokenizer.ggml.add_bos_token", "eos": "tokenizer.ggml.add_eos_token"}
    if not any(name in metadata for name in names.values()):
        return  # what transformers made of the kind of tokenizer
    tokens: dict[str, tuple[str, int]] = {}
    for end, name in names.items():
        number = metadata.get(f"tokenizer.ggml.{end}_token_id")
        if metadata.get(name) and number is not None:
            tokens[end] = (backend.id_to_token(int(number)), int(number))
    parts = [tokens["bos"][0]] if "bos" in tokens else []
    parts += ["$A"] + ([tokens["eos"][0]] if "eos" in tokens else [])
    special = list(dict.fromkeys(tokens.values()))
    backend.post_processor = processors.TemplateProcessing(single=parts, special_tokens=special)


def _write_pooling(folder: Path, metadata: Mapping[str, Any], width: int) -> None:
    """Write the pooling that an embedding model's file states, in the files of sentence-transformers."""
    stated = metadata.get(f"{metadata.get('general.architecture')}.pooling_type")
    if stated not in _POOLINGS:
        return
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": where, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, where) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": width, _POOLINGS[stated]: True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
