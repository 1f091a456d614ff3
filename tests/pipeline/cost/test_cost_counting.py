"""Every counted product against torch's flop counter, run over the code that trains and the modules that encode."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from heads import METHODS, hyperparameters, network
from heads.presets import PRESETS, HeadShape
from heads.training.inputs import checked_inputs
from heads.training.trainer import Trainer, part_of
from pipeline.cost import head as counted
from pipeline.cost.backbone import ElementCounter, build, count_config
from pipeline.errors import PipelineError

CLASSES = {2: (3, 12), 3: (2, 6, 12)}


def by_onednn(rows, weight, *others, **named) -> int:
    return 2 * math.prod(rows) * weight[0]


def counting() -> FlopCounterMode:
    """Torch's counter, told of the operation that multiplies on a CPU (`heads.network.linear`)."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: by_onednn})


def flops_of(call) -> int:
    with counting() as counter:
        call()
    return counter.get_total_flops()


def trainer_of(method: str, preset: str, *, inputs: int = 48, levels: int = 2, batch: int = 12) -> Trainer:
    rng = np.random.default_rng(0)
    finest = np.arange(60) % CLASSES[levels][-1]
    labels = np.stack([finest * count // CLASSES[levels][-1] for count in CLASSES[levels]], axis=1)
    features = rng.standard_normal((60, inputs), dtype=np.float32)
    row = METHODS[method]
    shape = HeadShape.of(
        PRESETS[preset], inputs, CLASSES[levels], proxy_temperature=row.settings.get("proxy_temperature")
    )
    settings = hyperparameters(method, batch_size=batch, epochs=1)
    return Trainer(checked_inputs(features, labels, None, torch.device("cpu")), row, shape, [1], settings)


def one_step(trainer: Trainer):
    trainer._sampler.new_epoch()
    return part_of(trainer.objective.prepare(trainer._sampler.draw(0, 1)), 0)


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if not row.closed_form])
def test_a_real_training_step_costs_what_is_counted(method, preset, levels):
    trainer = trainer_of(method, preset, levels=levels)
    shape, batch = trainer._shape, one_step(trainer)
    step = counted.step(METHODS[method], shape, 12)
    assert step.rows == trainer.objective.rows_for(12) == batch.rows.shape[1]

    inputs = trainer._inputs.features[batch.rows]
    with counting() as counter:
        outputs = network.forward(trainer._weights, shape, inputs, batch.dropout)
    assert counter.get_total_flops() == step.head_forward
    assert flops_of(lambda: outputs.sum().backward()) == step.head_backward
    cut = outputs.detach().requires_grad_()
    with counting() as counter:
        loss = trainer.objective.losses(trainer._weights, cut, batch, slice(0, step.rows))
    assert counter.get_total_flops() == step.losses.forward
    assert flops_of(lambda: loss.sum().backward()) == step.losses.backward
    assert flops_of(lambda: trainer.step(batch, torch.tensor(1e-4))) == step.total - step.optimiser


SHAPE = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "qwen3": {**SHAPE, "model_type": "qwen3", "head_dim": 16, "num_key_value_heads": 2},
    "llama": {**SHAPE, "model_type": "llama", "num_key_value_heads": 2},
    "mistral": {**SHAPE, "model_type": "mistral", "num_key_value_heads": 2, "sliding_window": None},
    "bert": {**SHAPE, "model_type": "bert"},
    "xlm-roberta": {**SHAPE, "model_type": "xlm-roberta"},
    "albert": {**SHAPE, "model_type": "albert", "embedding_size": 16},
    "mpnet": {**SHAPE, "model_type": "mpnet"},
    "gpt2": {"model_type": "gpt2", "vocab_size": 264, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512},
}  # fmt: skip
LAYERS = 3 * 2 * (4 * 32 * 32 + 2 * 32 * 48)  # of an encoder: query, key, value, output, up and down
BY_HAND = {  # linear, attention, once
    "qwen3": (3 * 2 * (2 * 32 * 64 + 2 * 32 * 32 + 3 * 32 * 48), 3 * 4 * 64, 0),
    "bert": (LAYERS, 3 * 4 * 32, 2 * 32 * 32),
    "albert": (LAYERS + 2 * 16 * 32, 3 * 4 * 32, 2 * 32 * 32),
    "mpnet": (LAYERS, 3 * 4 * 32, 2 * 32 * 32),
}
ANGLES = {"qwen3": 16}  # of the positions: a matrix product in transformers up to 5.17, none in 5.24


@pytest.mark.parametrize("name", list(CONFIGS))
def test_real_modules_of_each_architecture_cost_what_is_counted(name):
    model, made = build(CONFIGS[name]), count_config(name, CONFIGS[name])
    for length in (5, 77):
        ids = torch.zeros(1, length, dtype=torch.int64, device="meta")
        with torch.no_grad():
            found = flops_of(lambda ids=ids: model(input_ids=ids))
        assert found == made.products(length, masked=True)


@pytest.mark.parametrize("name", list(BY_HAND))
def test_an_architecture_costs_what_its_shapes_multiply(name):
    made = count_config(name, CONFIGS[name])
    linear, *others = BY_HAND[name]
    assert made.linear in (linear, linear + ANGLES.get(name, 0))
    assert [made.attention, made.once] == others


@pytest.mark.parametrize(
    "config",
    [
        {**SHAPE, "model_type": "deberta-v2", "relative_attention": True, "position_buckets": 8},
        {**SHAPE, "model_type": "mixtral", "num_key_value_heads": 2, "num_local_experts": 4},
        {"model_type": "t5", "vocab_size": 264, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4},
        {**SHAPE, "model_type": "bert", "num_attention_heads": 5},
        {"model_type": "unheard-of"},
        {},
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_line(config):
    with pytest.raises(PipelineError, match=f"backbone mine: a {config.get('model_type')} cannot be counted") as caught:
        count_config("mine", config)
    assert "\n" not in str(caught.value)


def test_a_causal_backbone_needs_the_pairs_below_the_diagonal():
    made = count_config("qwen3", CONFIGS["qwen3"])
    masked = made.products(9, masked=True) - made.products(9)
    assert masked == made.attention * (81 - 45)
    assert made.products(np.array([3, 9])) == made.products(3) + made.products(9)
    assert made.attention_share(500) > made.attention_share(5)


def test_what_is_no_product_is_counted_as_stated():
    x, gain = torch.randn(4, 10), torch.ones(10)
    with ElementCounter() as counter:
        y = torch.nn.functional.layer_norm(x, (10,), gain, gain)
        y = torch.nn.functional.gelu(y + x)
        z = (y @ x.T).softmax(1).view(16)
        z.sum()
    assert counter.elements == 40 * 7 + 40 + 40 * 5 + 16 * 5 + 16


@pytest.mark.parametrize("length", [8, 100])
def test_elementwise_counts_of_other_lengths_follow_from_three(length):
    model, made = build(CONFIGS["qwen3"]), count_config("qwen3", CONFIGS["qwen3"])
    with torch.no_grad(), ElementCounter() as counter:
        model(input_ids=torch.zeros(1, length, dtype=torch.int64, device="meta"))
    assert made.other.count(length) == counter.elements
