"""A run as ONNX graphs: tokens to every prefix in `model.onnx`, stored features to every prefix in `head.onnx`.

Both have one output per prefix, `embedding_64` and so on, each of unit length: onnxruntime computes what is asked for,
so whoever asks for the short prefix pays for nothing else. The alternative, the length as an input, would make a shape
depend on a value, which other runtimes refuse. Torch's older exporter traces the modules of the sentence-transformers
folder, so what is written is what that folder computes, in float32. Texts are tokenized by `tokenizer.json` beside
them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.export.sentence_transformers_folder import load_folder
from pipeline.terminal import extras
from pipeline.terminal.escape import code_literal, markdown_text
from pipeline.workspace.runs import Run

MODEL, HEAD, TOKENIZER, CARD = "model.onnx", "head.onnx", "tokenizer.json", "README.md"
AGREEMENT = 1e-4
"""Largest difference in any dimension from the model that was traced."""
_OPSET = 17
_CARD = """# ONNX: {name}

`model.onnx`: `input_ids`, `attention_mask` (int64 [n, tokens]) to {outputs} (float32, unit length).
`head.onnx`: `features` (float32 [n, {inputs}], as the backbone pools them) to the same outputs.

```python
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file({tokenizer})
tokenizer.enable_truncation({truncation})
tokenizer.enable_padding({padding})
session = onnxruntime.InferenceSession({model})
batch = tokenizer.encode_batch([{prompt} + text for text in ["first text", "second text"]])
tokens = {{
    "input_ids": np.array([text.ids for text in batch]),
    "attention_mask": np.array([text.attention_mask for text in batch]),
}}
(embeddings,) = session.run(["{first}"], tokens)
```
"""


class _Prefixes(nn.Module):
    """Features through the modules behind the pooling, to unit vectors of every prefix."""

    def __init__(self, modules: Sequence[nn.Module], dims: Sequence[int]) -> None:
        super().__init__()
        self.parts, self.dims = nn.ModuleList(modules), list(dims)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        state: dict[str, Tensor] = {"sentence_embedding": features}
        for module in self.parts:
            state = module(state)
        full = state["sentence_embedding"]
        return tuple(nn.functional.normalize(full[:, :dim], dim=1) for dim in self.dims)


class _Whole(nn.Module):
    """Tokens to the same."""

    def __init__(self, backbone: nn.Module, pooling: nn.Module, prefixes: _Prefixes) -> None:
        super().__init__()
        self.backbone, self.pooling, self.prefixes = backbone, pooling, prefixes

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = self.pooling({"token_embeddings": states, "attention_mask": attention_mask})
        found: tuple[Tensor, ...] = self.prefixes(pooled["sentence_embedding"])
        return found


def write_onnx(folder: Path, source: Path, run: Run, name: str) -> None:
    """Write both graphs, the tokenizer and a card into an existing, empty folder.

    :param source: the run as a sentence-transformers folder.
    :param name: the name that the folder will have.
    :raises PipelineError: if the backbone cannot be traced, or has no tokenizer.json.
    """
    if not (source / TOKENIZER).is_file():
        raise PipelineError(
            f"backbone {run.record['backbone']} has no {TOKENIZER}, without which nothing else tokenizes like it",
            "save its tokenizer with transformers' save_pretrained, and embed again",
        )
    model, dims = load_folder(source), list(run.record["dims"])
    prefixes = _Prefixes(list(model)[2:], dims)
    backbone = model[0].model
    backbone.set_attn_implementation("eager")  # the other ways branch on what a tensor holds
    whole = _Whole(backbone, model[1], prefixes).eval()
    outputs = [f"embedding_{dim}" for dim in dims]
    example = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]]), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    tokens = {"input_ids": {0: "n", 1: "tokens"}, "attention_mask": {0: "n", 1: "tokens"}}
    width = int(run.record["features"]["hidden_size"])
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            _export(whole, example, folder / MODEL, tokens, outputs)
            _export(prefixes.eval(), (torch.randn(2, width),), folder / HEAD, {"features": {0: "n"}}, outputs)
    except Exception as error:  # whatever transformers' model of this architecture does that a trace cannot follow
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(
            f"backbone {run.record['backbone']} cannot be written as ONNX ({type(error).__name__}: {reason})",
            "export as sentence-transformers instead",
        ) from error
    pad_id, pad_token = model.tokenizer.pad_token_id or 0, model.tokenizer.pad_token or "[PAD]"
    padding = f"pad_id={pad_id}, pad_token={code_literal(pad_token)}"
    # as transformers made it by the settings beside the file; its own limits may be others than the model's
    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    limit, side = int(run.record["features"]["max_length"]), model.tokenizer.truncation_side
    tokenizer.enable_truncation(limit, direction=side)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token)
    tokenizer.save(str(folder / TOKENIZER))
    card = _CARD.format(
        name=f"{markdown_text(run.record['backbone'])} with a {run.record['method']} head",
        outputs=", ".join(f"`{o}`" for o in outputs),
        inputs=width,
        tokenizer=code_literal(f"{name}/{TOKENIZER}"),
        model=code_literal(f"{name}/{MODEL}"),
        truncation=str(limit) if side == "right" else f"{limit}, direction={code_literal(side)}",
        padding=padding,
        prompt=code_literal(run.record["prompt"]),
        first=outputs[0],
    )
    (folder / CARD).write_text(card, encoding="utf-8")


def check_onnx(
    folder: Path, source: Path, run: Run, texts: list[str], features: NDArray[np.float32]
) -> tuple[float, float]:
    """Run both graphs with onnxruntime, and compare every prefix with the traced model and with the run.

    :param features: stored features [n, H] of the texts.
    :returns: the largest difference in any dimension from the run's own embeddings, and from the traced model.
    :raises PipelineError: if a graph differs by more than `AGREEMENT`.
    """
    runtime = extras.needed("onnxruntime")
    model, head, dims = load_folder(source), run.load(), list(run.record["dims"])
    names = [f"embedding_{dim}" for dim in dims]
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    batch = tokenizer.encode_batch([run.record["prompt"] + text for text in texts])
    tokens = {
        "input_ids": np.array([text.ids for text in batch]),
        "attention_mask": np.array([text.attention_mask for text in batch]),
    }
    whole = _session(runtime, folder / MODEL).run(names, tokens)
    alone = _session(runtime, folder / HEAD).run(names, {"features": features})
    traced, own = 0.0, 0.0
    for dim, of_model, of_head in zip(dims, whole, alone, strict=True):
        expected, mine = model.encode(texts, truncate_dim=dim, normalize_embeddings=True), head.embed(features, dim=dim)
        traced = max(traced, _apart(of_model, expected), _apart(of_head, mine))
        own = max(own, _apart(of_model, mine))
    if not traced <= AGREEMENT:
        raise PipelineError(
            f"onnxruntime gives other embeddings than the model that was traced, {traced:.2g} apart",
            "export as sentence-transformers instead, and please report this backbone",
        )
    return own, traced


def _export(
    model: nn.Module, example: tuple[Tensor, ...], path: Path, inputs: dict[str, dict[int, str]], outputs: list[str]
) -> None:
    torch.onnx.export(
        model,
        example,
        str(path),
        input_names=list(inputs),
        output_names=outputs,
        dynamic_axes={**inputs, **{name: {0: "n"} for name in outputs}},
        opset_version=_OPSET,
        dynamo=False,
    )


def _session(runtime: Any, path: Path) -> Any:
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _apart(a: Any, b: Any) -> float:
    return float(np.nan_to_num(np.abs(np.asarray(a) - np.asarray(b)), nan=np.inf).max())
