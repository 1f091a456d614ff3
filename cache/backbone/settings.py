"""What the files that sentence-transformers writes beside a checkpoint ask for: obeyed, or refused by name.

modules.json, the Transformer module's settings (sentence_bert_config.json), 1_Pooling/config.json, further modules and
config_sentence_transformers.json: every key that can change an embedding is either applied here or in `cache.model`,
or the checkpoint is refused with the file and the key; keys without such an effect are listed. What is unknown is
refused too, as sentence-transformers 6.2 itself does for the settings of its modules. The alternative, picking known
keys and dropping the others, gives features of another model without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cache.backbone.json_files import JsonObject, read_json
from cache.errors import CacheError

ABSOLUTE_POSITIONS = ("gpt2", "gpt_neo", "gpt_bigcode", "opt", "bert", "distilbert", "electra", "mpnet")
"""Kinds of models in which padding on the left moves the positions of a text."""
POOLINGS = ("last", "mean", "cls")
_MODES = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean", "lasttoken": "last"}
_LEGACY_MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
# the names under which older releases wrote the Transformer module's settings; the first that holds any counts
_TRANSFORMER_FILES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
_ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
_HARMLESS_ARGUMENTS = {"dtype", "torch_dtype", "attn_implementation", "trust_remote_code", "use_fast"}
# of the Transformer module: what changes no embedding of a text given without a task
_TRANSFORMER_WITHOUT_EFFECT = {"unpad_inputs", "query_length", "document_length", "query_expansion"}
_TEXT_METHOD = {"method": "forward", "method_output_name": "last_hidden_state"}
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")


@dataclass(frozen=True)
class Settings:
    """How a checkpoint wants its texts embedded. `dense` are folders of Dense modules, applied after pooling."""

    pooling: str
    prompt: str = ""
    lowercase: bool = False
    max_length: int | None = None
    dense: tuple[str, ...] = ()


def read_settings(folder: Path, source: str) -> Settings | None:
    """Read the files in `folder`, of the backbone that `source` names; None without a modules.json.

    :raises CacheError: a file that is damaged, or asks for something that is not done here.
    """
    if (folder / "adapter_config.json").exists():
        raise CacheError(
            f"backbone {source}: adapter_config.json asks for adapter weights (PEFT), which are not applied here",
            "merge the adapter into the weights (merge_and_unload), save, and name that folder",
        )
    modules = read_json(folder / "modules.json")
    if modules is None:
        return None
    pooling, dense = _read_modules(folder, modules)
    lowercase, limit = _transformer(folder)
    include_prompt, mode = _read_pooling(folder / pooling / "config.json")
    prompt = _default_prompt(folder / "config_sentence_transformers.json")
    if prompt and not include_prompt:
        raise CacheError(
            f"{folder / pooling / 'config.json'}: include_prompt is false, and the default prompt is {prompt!r}: "
            "pooling without the prompt's tokens is not done here",
            "remove default_prompt_name from config_sentence_transformers.json, or choose another model",
        )
    return Settings(mode, prompt, lowercase, limit, dense)


def leaves_out_prompt(folder: Path) -> bool:
    """Tell whether a checkpoint's pooling leaves out the tokens of a prompt.

    :raises CacheError: a file that is damaged.
    """
    modules = read_json(folder / "modules.json")
    if modules is None:
        return False
    include_prompt, _ = _read_pooling(folder / _read_modules(folder, modules)[0] / "config.json")
    return not include_prompt


def _read_modules(folder: Path, modules: Any) -> tuple[str, tuple[str, ...]]:
    """Return the folder of the Pooling module and those of Dense modules behind it."""
    path = folder / "modules.json"
    if not isinstance(modules, list) or not modules:
        raise CacheError(f"{path} holds no list of modules", "fetch the checkpoint again")
    kinds = [_kind(path, JsonObject.of(f"{path}: module {n}", module)) for n, module in enumerate(modules)]
    names = [kind for kind, _ in kinds]
    if names[0] != "Transformer" or "Pooling" not in names:
        raise CacheError(
            f"{path} names no Pooling module behind a Transformer: {', '.join(names)}", "name a text embedding model"
        )
    if kinds[0][1] not in ("", "."):
        raise CacheError(f"{path}: the Transformer module lies in {kinds[0][1]}", "move its files beside modules.json")
    at = names.index("Pooling")
    if at != 1 or "Transformer" in names[1:] or "Pooling" in names[2:]:
        raise CacheError(f"{path}: modules {', '.join(names)} in this order are not done here", "choose another model")
    if "Dense" in names and "Normalize" in names[: len(names) - names[::-1].index("Dense")]:
        raise CacheError(f"{path}: a Dense module behind Normalize is not done here", "choose another model")
    for kind, where in kinds[2:]:
        if kind == "Normalize":
            _refuse_keys(folder / where / "config.json", {"module_input_name": ("sentence_embedding",), **_NAMES})
        elif kind == "Dense":
            check_dense(folder / where)
    return kinds[1][1], tuple(where for kind, where in kinds[2:] if kind == "Dense")


_NAMES = {"module_output_name": ("sentence_embedding", None)}
_KINDS = ("Transformer", "Pooling", "Normalize", "Dense", "Dropout", "Head")
# of a folder that `pipeline export` wrote; a head is no part of a feature
_EXPORTED = {"pipeline.export.packed.PackedTransformer": "Transformer", "heads.exported.ExportedHead": "Head"}


def _kind(path: Path, module: JsonObject) -> tuple[str, str]:
    """Return the class of a module, without its package, and its folder."""
    name, where = module.text("type", ""), module.text("path", "")
    assert name is not None
    assert where is not None
    kind = _EXPORTED.get(name) or name.rsplit(".", 1)[-1]
    if not (name in _EXPORTED or name.startswith("sentence_transformers.")) or kind not in _KINDS:
        raise CacheError(
            f"{path}: module {name or 'without a type'} is not applied here",
            "remove it from modules.json for the states as they are pooled, or choose another model",
        )
    if PurePosixPath(where).is_absolute() or ".." in PurePosixPath(where).parts:
        raise CacheError(f"{path}: module path {where!r} leaves the folder", "name a folder inside it")
    if module.values.get("kwargs"):
        raise CacheError(f"{path}: module {kind} has kwargs, which are not applied here", "remove them there")
    return kind, where


def _refuse_keys(path: Path, known: dict[str, tuple[Any, ...]]) -> JsonObject:
    """Return the settings of a module, of which every one has a value that is known to change nothing."""
    found = JsonObject.read_or_empty(path)
    for key, value in found.values.items():
        if key in known and value not in known[key]:
            raise CacheError(f"{path}: {key} is {value!r}, which is not done here", "choose another model")
    return found


def check_dense(folder: Path) -> JsonObject:
    """Return the settings of a Dense module, all of which are applied.

    :raises CacheError: one is not, or its weights are not in a safetensors file.
    """
    path = folder / "config.json"
    fixed = {"use_residual": (False, None), "module_input_name": ("sentence_embedding", None), **_NAMES}
    found = _refuse_keys(path, fixed)
    known = {"in_features", "out_features", "bias", "activation_function"}
    if unknown := sorted(found.values.keys() - known - fixed.keys()):
        raise CacheError(f"{path}: {unknown[0]} is not known here", "choose another model")
    found.count("in_features")
    found.count("out_features")
    activation = found.text("activation_function", "torch.nn.modules.activation.Tanh") or ""
    if not activation.startswith("torch.nn.") or activation.rsplit(".", 1)[-1] not in _ACTIVATIONS:
        raise CacheError(f"{path}: activation_function {activation!r} is not done here", "choose another model")
    if not (folder / "model.safetensors").is_file():
        raise CacheError(
            f"{folder} has no model.safetensors",
            "save the model again; pickled weights (pytorch_model.bin) are never read",
        )
    return found


def _transformer(folder: Path) -> tuple[bool, int | None]:
    """Return whether texts are put into lower case first, and the longest text in tokens, where these are stated."""
    for name in _TRANSFORMER_FILES:
        found = JsonObject.read_or_empty(folder / f"sentence_{name}_config.json")
        if found.values:
            break
    else:
        return False, None
    for key in _ARGUMENTS:
        others = sorted(found.object(key).values.keys() - _HARMLESS_ARGUMENTS)
        if others:
            value = found.object(key).values[others[0]]
            raise CacheError(
                f"{found.where} asks for {key} {{{others[0]!r}: {value!r}}}, which is not applied here",
                "write it into config.json or tokenizer_config.json, where it belongs, and remove it there",
            )
    modality = found.object("modality_config").values.get("text", _TEXT_METHOD)
    wanted: dict[str, tuple[Any, ...]] = {
        "transformer_task": ("feature-extraction", None),
        "module_output_name": ("token_embeddings", None),
        "processing_kwargs": ({}, None),
        "tokenizer_name_or_path": (None,),
    }
    known = {*wanted, *_ARGUMENTS, *_TRANSFORMER_WITHOUT_EFFECT, "modality_config", "max_seq_length", "do_lower_case"}
    for key, value in found.values.items():
        if key not in known or (key in wanted and value not in wanted[key]):
            raise CacheError(
                f"{found.where}: {key} is {value!r}, which is not done here", "remove it if it may be removed"
            )
    if modality != _TEXT_METHOD:
        raise CacheError(f"{found.where}: modality_config reads text by {modality!r}", "choose a text embedding model")
    return found.flag("do_lower_case"), found.integer("max_seq_length", least=1)


def _read_pooling(path: Path) -> tuple[bool, str]:
    """Return whether a prompt's tokens are pooled too, and the pooling, from both spellings of the file."""
    found = JsonObject.read_or_empty(path)
    flags = {name: found.flag(f"pooling_mode_{name}") for name in _LEGACY_MODES}
    known = {f"pooling_mode_{name}" for name in _LEGACY_MODES}
    known |= {"pooling_mode", "include_prompt", "word_embedding_dimension", "embedding_dimension"}
    if unknown := sorted(found.values.keys() - known):
        raise CacheError(
            f"{path}: {unknown[0]} is not known here", f"choose a model that pools by {', '.join(POOLINGS)}"
        )
    modes = [name for name, on in flags.items() if on]
    stated = found.values.get("pooling_mode")
    if stated is not None:
        modes = [stated] if isinstance(stated, str) else found.texts("pooling_mode")
    elif not modes:
        modes = ["mean"]  # what sentence-transformers takes where no mode is on
    if len(modes) != 1 or modes[0] not in _MODES:
        raise CacheError(
            f"{path} pools by {' + '.join(modes) or 'nothing'}, which is not done here",
            f"choose a model that pools by one of {', '.join(POOLINGS)}",
        )
    return found.flag("include_prompt", default=True), _MODES[modes[0]]


def _default_prompt(path: Path) -> str:
    """Return the prompt that is put before every text."""
    found = JsonObject.read_or_empty(path)
    if found.values.get("truncate_dim") is not None:
        raise CacheError(
            f"{path}: truncate_dim is {found.values['truncate_dim']!r}, and features are never cut",
            "remove it there; cut the embedding of a head instead",
        )
    kind = found.text("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise CacheError(f"{path}: model_type is {kind}", "choose a SentenceTransformer, one vector per text")
    prompts, default = found.object("prompts"), found.text("default_prompt_name")
    if not default:
        return ""
    if default not in prompts.values:
        raise CacheError(f"{path}: default_prompt_name {default!r} is not among its prompts", "name one of them")
    return prompts.text(default, "") or ""
