"""AdamW on one flat vector of weights: torch's fused kernel, called directly.

`torch.optim.AdamW(fused=True)` ends in the same call, on the same numbers. Around it, its first step imports torch's
compiler, a thousand modules and two to four seconds that a fit of three seconds would wait for, and each step costs
Python more than the kernel takes. (Loshchilov and Hutter, 2019; torch's defaults for betas and epsilon.)
"""

from __future__ import annotations

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdamW:
    """The moments of some weights, and how many steps were taken."""

    def __init__(self, weights: Tensor, grads: Tensor, rate: Tensor, weight_decay: float) -> None:
        """Take no step yet.

        :param weights: float32, changed in place.
        :param grads: float32 of the same shape, read at each step.
        :param rate: the learning rate, float32 [], read at each step.
        """
        self._weights, self._grads, self._rate, self._weight_decay = [weights], [grads], rate, weight_decay
        self._means, self._squares = [torch.zeros_like(weights)], [torch.zeros_like(weights)]
        self._steps = [torch.zeros((), device=weights.device)]

    def step(self, excess: Tensor | None = None) -> None:
        """Change the weights.

        :param excess: what the gradient is divided by first, in place and in the same pass, float32 [].
        """
        self._steps[0].add_(1)
        torch._fused_adamw_(
            self._weights,
            self._grads,
            self._means,
            self._squares,
            [],
            self._steps,
            lr=self._rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self._weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
            grad_scale=excess,
        )
