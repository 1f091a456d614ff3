"""The tokenizer of a backbone with its end token built in, for software that knows nothing of our rule.

`cache` appends a backbone's end token by itself, once, whether the tokenizer file does or not. An exported folder is
read by others, so there the file must do it: its post-processor gets the token as a template, which truncation leaves
room for. The class that transformers would pick for the architecture builds its tokenizer anew, without that
template, so the configuration names the one that takes the file as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cache.backbone import Backbone, read_json
from pipeline.errors import PipelineError

_PROBE = "a"


def carry_end_token(folder: Path, backbone: Backbone) -> None:
    """Make the tokenizer in `folder` append the backbone's end token, unless it does.

    :raises PipelineError: if there is no tokenizer.json.
    """
    from tokenizers import Tokenizer, processors

    path = folder / "tokenizer.json"
    if backbone.end_token is None:
        return
    if not path.is_file():
        raise PipelineError(
            f"backbone {backbone.name} has no tokenizer.json to put its end token into",
            "save its tokenizer with transformers' save_pretrained, and embed again",
        )
    tokenizer = Tokenizer.from_file(str(path))
    if tokenizer.encode(_PROBE).ids[-1:] != [backbone.end_token]:
        token = tokenizer.id_to_token(backbone.end_token)
        template = processors.TemplateProcessing(
            single=f"$A {token}", pair=f"$A {token} $B {token}", special_tokens=[(token, backbone.end_token)]
        )
        before = tokenizer.post_processor
        tokenizer.post_processor = template if before is None else processors.Sequence([before, template])
        tokenizer.save(str(path))
    config: dict[str, Any] = read_json(folder / "tokenizer_config.json") or {}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in ("add_eos_token", "add_bos_token"):
        config.pop(name, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
