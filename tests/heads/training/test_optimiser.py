"""AdamW against torch's own."""

from __future__ import annotations

import subprocess
import sys

import torch

from heads.training.optimiser import AdamW


def test_steps_are_those_of_torch_to_the_bit():
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(1001, generator=draw)
    theirs = torch.nn.Parameter(weights.clone())
    rate = torch.tensor(1e-3)
    ours = AdamW([weights[:400], weights[400:]], rate, weight_decay=0.01)
    reference = torch.optim.AdamW([theirs], lr=rate, weight_decay=0.01, fused=True)
    for number in range(20):
        rate.fill_(1e-3 / (number + 1))
        theirs.grad = torch.randn(1001, generator=draw)
        ours.step([theirs.grad[:400], theirs.grad[400:]])
        reference.step()
        assert torch.equal(weights, theirs.detach())


def test_a_gradient_that_is_too_long_is_divided_where_it_stands():
    weights, whole = torch.zeros(5), torch.arange(5.0)
    grads, alone = 3 * whole, torch.zeros(5)
    AdamW([weights], torch.tensor(0.1), 0.01).step([grads], torch.tensor(3.0))
    AdamW([alone], torch.tensor(0.1), 0.01).step([whole.clone()])
    torch.testing.assert_close(weights, alone)
    torch.testing.assert_close(grads, whole)


def test_a_fit_imports_no_compiler():
    """torch.optim's first step would, for longer than many a fit takes."""
    code = (
        "import numpy, sys, heads\n"
        "heads.fit(numpy.random.default_rng(0).normal(size=(40, 8)), numpy.arange(40)[:, None] // [20, 10],"
        " method='v5', epochs=1, batch_size=4, device='cpu')\n"
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'sympy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"
