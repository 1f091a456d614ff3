"""Write a checkpoint folder of Qwen3's architecture with seeded random weights and a real tokenizer.

For machines that no hub reaches: the folder loads by path like any other (`pipeline embed DATASET --backbone FOLDER`),
so that speed, memory and every code path of the real model can be tried. Its features mean nothing.

It says how it is pooled, as Qwen3-Embedding does: last token, after an end token that the backbone appends.

    python scripts/make_qwen3_checkpoint.py --size tiny --tokenizer TOKENIZER_FOLDER --output artifacts/qwen3-tiny

`full` is Qwen3-0.6B's published shape (1.2 GB in bfloat16); `tiny` keeps its vocabulary and kind of layers and nothing
else (20 MB), so that it runs on a CPU in tests.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

SHAPES = {
    "full": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    },
}
VOCABULARY = 151936
MODULES = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def write_checkpoint(
    output: Path, tokenizer: Path, *, size: str = "tiny", seed: int = 0, vocabulary: int = VOCABULARY
) -> None:
    """Write config.json, model.safetensors (bfloat16) and the tokenizer's files into the folder `output`."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    missing = [name for name in TOKENIZER_FILES if not (tokenizer / name).is_file()]
    if missing:
        sys.exit(f"{tokenizer} has no {missing[0]}\nname a folder that holds {' and '.join(TOKENIZER_FILES)}")
    config = Qwen3Config(
        vocab_size=vocabulary,
        **SHAPES[size],
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    torch.manual_seed(seed)
    model = Qwen3Model(config).to(torch.bfloat16)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):  # ones would hide a norm that is applied twice or not at all
                weight.uniform_(0.5, 1.5)
    model.save_pretrained(output)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, output / name)
    modules = [
        {"idx": i, "name": str(i), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, folder) in enumerate(MODULES.items())
    ]
    (output / "modules.json").write_text(json.dumps(modules, indent=2))
    (output / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": SHAPES[size]["hidden_size"], "pooling_mode_lasttoken": True}
    (output / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with Qwen3's tokenizer files")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_checkpoint(options.output, options.tokenizer, size=options.size, seed=options.seed)
    print(options.output)


if __name__ == "__main__":
    main()
