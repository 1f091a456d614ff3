"""What `pipeline cost` says: the published setting recounted, real lengths, and the command as typed."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from cache import resolve
from cache.backbone import Backbone
from cache.batching import token_lengths
from heads.training.inputs import checked_inputs
from pipeline.claims.cost import cost_measurements
from pipeline.claims.published import CLAIMS
from pipeline.claims.verdicts import judge
from pipeline.cost import tables
from pipeline.cost.backbone import QWEN3_06B, count_config
from pipeline.cost.lengths import measured_lengths, padded
from pipeline.cost.measure import _rows, step_seconds
from pipeline.cost.tables import quantity, seconds
from tests.pipeline.small_dataset import rows, write_csv

ANGLES = 128
"""Of a text's positions: a matrix product in transformers up to 5.17, none in 5.24."""


@pytest.fixture(scope="module")
def measured():
    return cost_measurements()


def figures(measured, claim):
    return {name: figure.value for name, figure in measured[claim].figures.items()}


def test_qwen3s_published_shape_has_its_published_size():
    made = count_config("qwen3-0.6b", QWEN3_06B)
    assert made.parameters == 596_049_920  # 0.6B; 0.44B of them multiply
    layers = 2 * 28 * (2 * 1024 * 2048 + 2 * 1024 * 1024 + 3 * 1024 * 3072)
    assert made.linear in (layers, layers + ANGLES)
    assert made.attention == 28 * 4 * 16 * 128


def test_claims_fit_the_published_table(measured):
    rows_of = {claim.id: claim for claim in CLAIMS}
    assert measured.keys() == {"training-tie", "loss-flops", "head-backward", "encoding"}
    for id_, measurement in measured.items():
        assert rows_of[id_].measure is None
        assert rows_of[id_].tested
        assert rows_of[id_].published.keys() <= measurement.figures.keys()
    verdicts = {claim.id: claim for claim in judge({}, others=measured)}
    assert verdicts["training-tie"].verdict == verdicts["encoding"].verdict == "equal by construction"
    assert verdicts["loss-flops"].verdict == "order holds"
    assert verdicts["head-backward"].verdict == "does not hold"
    assert not any(verdicts["encoding"].reproduced.values())


def test_the_tie_is_the_backbones_and_vanishes_with_it(measured):
    found = figures(measured, "training-tie")
    backbone = 114.6366  # GFLOPs a text of 128 tokens
    assert found["v5"] == pytest.approx(96 * backbone, rel=1e-3)
    assert found["v5 as published"] == pytest.approx(4 * backbone + found["v5"] - 96 * backbone, abs=0.01)
    assert found["v5 distinct texts"] / found["mrl distinct texts"] == pytest.approx(1.5, abs=1e-3)
    assert abs(found["v5 - mrl, %"]) < 0.001
    assert found["v5 - mrl cached, %"] == pytest.approx(100 * (found["v5 cached"] / found["mrl cached"] - 1))
    assert found["v5 - mrl cached, %"] > 30


def test_losses_as_published_count_one_text_in_the_classifiers(measured):
    found = figures(measured, "loss-flops")
    contrast = 2 * 24 * 24 * 256 / 1e6  # published: 0.3
    assert found["v5"] == pytest.approx(2 * 2 * contrast + 24 * 2 * 256 * (150 + 10) / 1e6)
    assert found["mrl"] == pytest.approx(5 * (2 * contrast + 24 * 2 * 256 * 150 / 1e6))
    assert found["v5 one text classified"] == pytest.approx(1.36, rel=0.1)
    assert found["mrl one text classified"] == pytest.approx(3.4, rel=0.03)
    backward = figures(measured, "head-backward")
    assert backward["v5"] == backward["mrl"]


def test_lengths_are_those_of_the_backbones_own_tokens():
    backbone = resolve("minilm")
    texts = [row[0] for row in rows()] + [rows()[0][0]]
    found = measured_lengths(texts, backbone, causal=False)
    assert found.tokens.tolist() == token_lengths(texts, backbone).tolist()
    assert len(found.distinct) == len(set(texts))
    assert found.nodes is None
    shared = measured_lengths(texts, Backbone("x", backbone.source, "last", 256), causal=True)
    sequences = {tuple(text.split()) for text in texts}
    assert shared.nodes < int(shared.tokens[shared.distinct].sum())
    assert shared.nodes >= len({path[:i] for path in sequences for i in range(1, len(path) + 1)})


def test_padding_costs_what_the_longest_of_a_batch_does():
    made = count_config("qwen3-0.6b", QWEN3_06B)
    assert padded(made, np.array([7, 7, 7]), 24).products == made.products(7)
    two = padded(made, np.array([2, 10]), 2)
    assert two.positions == pytest.approx(8, abs=0.5)  # three of four batches hold the long one
    assert two.products > made.products(np.array([2, 10])) / 2


def test_the_steps_that_are_timed_are_of_the_real_shape():
    labels = np.stack([np.arange(90) // 30, np.arange(90) // 10], axis=1)
    labels = np.concatenate([labels, [[2, 9]]])  # a class of one row: no pair
    for count in (1, 40, 1000):
        chosen = labels[_rows(labels, count)]
        assert set(chosen[:, 1]) == set(range(9))
        assert np.bincount(chosen[:, 1]).min() >= 2
        inputs = checked_inputs(np.ones((len(chosen), 4), np.float32), chosen, None, torch.device("cpu"))
        assert inputs.classes == (3, 9)
    labels[::3, 1] = -1  # rows that end at the coarse level
    assert step_seconds("v5", labels, 16, head="linear", batch=8) > 0


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0 FLOP"), (1, "1 FLOP"), (1360e3, "1.36 MFLOP"), (360.03e9, "360 GFLOP")]
)
def test_quantities_carry_units(value, shown):
    assert quantity(value, "FLOP") == shown


def test_durations_are_readable():
    assert [seconds(s) for s in (None, 0.00012, 0.5, 66.31, 3000, 8000)] == [
        "-", "0.12 ms", "500 ms", "66.3 s", "50 min", "2.2 h",
    ]  # fmt: skip


def test_cost_counts_without_weights_and_without_an_embed(pipeline, small_csv, tmp_path):
    folder = tmp_path / "shape only"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**QWEN3_06B, "architectures": ["Qwen3Model"]}))
    given = ("--dataset", small_csv, "--tokens", "128", "--no-measure")
    found = pipeline.json("cost", "--backbone", folder, *given)
    assert found["backbone"]["linear"] in (880_803_840, 880_803_840 + ANGLES)
    v5, mrl, joint = found["training"]
    assert (v5["method"], mrl["method"], joint["method"]) == ("v5", "mrl", "joint")
    assert v5["passes"] == mrl["passes"] == 96
    assert v5["step"]["rows"] == 72
    assert mrl["step"]["rows"] == 48
    assert v5["cached"]["passes"] == found["dataset_encoding"]["texts"] == len({row[0] for row in rows()})
    assert v5["loop"]["passes"] == v5["steps"] * 96
    assert v5["loop_backbone"] == v5["padded_backbone"] == v5["published_backbone"]
    assert v5["next_fit"]["total"] == v5["steps"] * v5["step"]["total"]
    assert [row["flops"] for row in found["search"] if row["documents"] == 1_000_000] == [128e6, 256e6, 384e6, 512e6]
    assert [row["float32"] for row in found["storage"]["embedding"]] == [256, 512, 768, 1024]
    trained = sum(row[3] == "train" for row in rows())
    assert v5["bytes"] == {"head": 16 * v5["parameters"], "features": 4 * 1024 * trained, "backbone": 2 * 596_049_920}
    assert v5["seconds"] == {"step": None, "loop": None, "cached": None, "next_fit": None}
    assert "not asked for" in shown_at_80_columns(found)
    assert "--tokens" in pipeline.fails("cost", "--backbone", folder, "--dataset", small_csv)
    absent = pipeline.fails("cost", "--backbone", "qwen3-0.6b", "--dataset", small_csv, HF_HOME=str(tmp_path))
    assert "which takes its tokenizer and no weights" in absent
    assert "do: count every text as so long: --tokens 128; or" in absent
    assert "--include '*.json' '*.txt'" in absent
    lonely = write_csv(
        tmp_path / "lonely.csv", [(f"text {i}", "a", f"b{i}", ("train", "val", "test")[i % 3]) for i in range(12)]
    )
    refused = pipeline.fails("cost", "--backbone", folder, "--dataset", lonely, "--tokens", "128", "--no-measure")
    assert "no two of the 4 training rows" in refused


def test_a_closed_form_has_no_steps_to_count(fitted):
    assert "lda is a closed form" in fitted.fails("cost", "--methods", "v5,lda", "--no-measure")


def test_cost_of_what_embed_used_last_is_measured(fitted):
    found = fitted.json("cost", "--methods", "mrl")
    assert found["speed"]["texts"] == len({row[0] for row in rows()})
    (training,) = found["training"]
    spent, speed = training["seconds"], found["speed"]["seconds_per_text"]
    assert spent["loop"] == pytest.approx(training["steps"] * spent["step"] + training["loop"]["passes"] * speed)
    assert all(row["seconds"] > 0 for row in found["search"] if row["documents"] < 1000)
    assert "measured on this machine" in shown_at_80_columns(found)


def shown_at_80_columns(record) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80)
    console.print(tables.step_table(record["training"]))
    console.print(tables.fit_table(record["training"]))
    console.print(tables.encoding_table(record["encoding"], record["speed"]))
    console.print(tables.search_table(record["search"], record["storage"]))
    console.print(tables.claims_table(record["claims"]))
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "GFLOP" in shown
    return "\n".join(tables.notes(record))
