"""A checkpoint named by its path: Qwen3's architecture at a tiny size, through all three stages."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import torch

from cache import FeatureStore, text_keys
from tests.pipeline.small_dataset import rows

ROOT = Path(__file__).resolve().parents[3]
END = 151643


def test_embed_fit_score_and_encode_take_a_path(pipeline, small_csv, tmp_path, qwen_tokenizer):
    from transformers import AutoModel, AutoTokenizer

    checkpoint = tmp_path / "Qwen3 Tiny"
    runpy.run_path(ROOT / "scripts" / "make_qwen3_checkpoint.py")["write_checkpoint"](checkpoint, qwen_tokenizer)

    embedded = pipeline.json("embed", small_csv, "--backbone", checkpoint, "--dtype", "float32")
    pipeline.json("fit-head", "--method", "v5", "--epochs", "1")
    (score,) = pipeline.json("score")["scores"]
    assert score["backbone"] == embedded["backbone"]
    texts = tmp_path / "lines.txt"
    texts.write_text("how much money do i have\n")
    assert pipeline.json("encode", texts, "--output", tmp_path / "out.parquet")["computed"] == 1

    store = FeatureStore.open(Path(embedded["store"]))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    for text in [row[0] for row in rows()[::9]]:
        ids = [*tokenizer(text, add_special_tokens=False).input_ids, END]
        with torch.inference_mode():
            alone = model(torch.tensor([ids])).last_hidden_state[0, -1].numpy()
        (feature,) = store.gather(text_keys([text])).astype(np.float32)
        assert np.linalg.norm(feature - alone) <= 1e-3 * np.linalg.norm(alone)  # stored in float16

    pipeline.json("embed", small_csv, "--backbone", "minilm")
    for name in (checkpoint, embedded["backbone"], Path(embedded["store"]).name):
        assert [s["run"] for s in pipeline.json("score", "--backbone", name)["scores"]] == [score["run"]]

    config = json.loads((checkpoint / "config.json").read_text())
    edited = tmp_path / "edited"
    shutil.copytree(checkpoint, edited)
    (edited / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert "trained on" in pipeline.fails("encode", texts, "--run", score["run"], "--backbone", edited)
