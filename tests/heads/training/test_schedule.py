"""The learning rate's two schedules: torch's own, and none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heads.training.optimiser import learning_rates


@pytest.mark.parametrize("steps", [4, 5, 10, 37, 250])
def test_one_cycle_is_that_of_torch(steps):
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    expected = []
    for _ in range(steps):
        expected.append(schedule.get_last_lr()[0])
        optimiser.step()
        if len(expected) < steps:
            schedule.step()
    np.testing.assert_allclose(learning_rates(3e-3, steps, "one-cycle"), expected, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_cycle_too_short_to_rise_begins_at_its_peak_and_falls(steps):
    rates = learning_rates(1e-3, steps, "one-cycle")
    assert rates[0] == 1e-3
    assert (np.diff(rates) < 0).all()


def test_a_constant_rate_is_constant():
    assert learning_rates(1e-4, 7, "constant").tolist() == [1e-4] * 7
