"""Tiny checkpoints, written once a session: every architecture that is claimed, with a tokenizer of our own."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

END = 1


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A function: architecture name -> folder of a tiny seeded float32 checkpoint."""
    root = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def make(name: str) -> Path:
        folder = root / name
        write_model(name, folder)
        write_tokenizer(folder, bert=name in ("bert", "xlm-roberta"))
        return folder

    return make


@pytest.fixture(scope="module")
def one_thread():
    """Tiny products gain nothing from a second thread and lose much where others use the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_tokenizer(folder: Path, *, bert: bool) -> None:
    """A byte-level tokenizer without merges: one token a byte, so that texts share prefixes of any length."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    specials = {"<pad>": 0, "<|endoftext|>": END, "[CLS]": 2, "[SEP]": 3}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = specials | {letter: i + len(specials) for i, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(specials))
    if bert:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {str(i): {"content": token} for token, i in specials.items()}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": added})
    )


def write_model(name: str, folder: Path) -> None:
    import torch
    import transformers as t

    shape = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0}
    window = {"sliding_window": 5}
    scaled = {
        **{"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 64},
        **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    }
    configs = {
        "qwen3": lambda: t.Qwen3Config(**shape, **heads, head_dim=16),
        "qwen2": lambda: t.Qwen2Config(**shape, **heads),
        "qwen2-window": lambda: t.Qwen2Config(**shape, **heads, **window, use_sliding_window=True, max_window_layers=1),
        "llama": lambda: t.LlamaConfig(**shape, **heads),
        "llama-scaled": lambda: t.LlamaConfig(**shape, **heads, rope_parameters=scaled),
        "mistral": lambda: t.MistralConfig(**shape, **heads, **window),
        "gemma2": lambda: t.Gemma2Config(**shape, **heads, **window, head_dim=16, query_pre_attn_scalar=16),
        "gemma3": lambda: t.Gemma3TextConfig(
            **{**shape, "num_hidden_layers": 6}, **heads, **window, head_dim=16, query_pre_attn_scalar=16
        ),
        "gpt2": lambda: t.GPT2Config(vocab_size=264, n_embd=32, n_layer=3, n_head=4, n_positions=512),
        "bert": lambda: t.BertConfig(**shape, num_attention_heads=4, max_position_embeddings=512),
        "xlm-roberta": lambda: t.XLMRobertaConfig(
            **shape, num_attention_heads=4, max_position_embeddings=514, pad_token_id=0
        ),
        "mpnet": lambda: t.MPNetConfig(**shape, num_attention_heads=4, max_position_embeddings=514),
    }
    torch.manual_seed(len(name))
    model = t.AutoModel.from_config(configs[name]())
    with torch.no_grad():
        for (
            parameter
        ) in model.parameters():  # large weights: attention that is far from uniform, norms that are not one
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
