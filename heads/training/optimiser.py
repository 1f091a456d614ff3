"""AdamW: torch's fused kernel, called directly.

`torch.optim.AdamW(fused=True)` ends in the same call, on the same numbers. Around it, its first step imports torch's
compiler, a thousand modules and two to four seconds that a fit of three seconds would wait for, and each step costs
Python more than the kernel takes. (Loshchilov and Hutter, 2019; torch's defaults for betas and epsilon.)

Learning rates of a fit, a number a step: constant, or one cycle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

WARM_UP = 0.3  # share of the cycle in which the rate rises
START, END = 1 / 25, 1 / 250_000  # of the peak rate


def learning_rates(lr: float, steps: int, schedule: str) -> np.ndarray:
    """Rates of all steps, float64 [steps], by a schedule of `methods.SCHEDULES`.

    One cycle rises from lr/25 to lr along half a cosine, then falls to nearly nothing along another (Smith and Topin,
    2018): torch's OneCycleLR with its defaults. That one would train less than four steps at next to nothing; here
    they begin at lr.
    """
    if schedule == "constant":
        return np.full(steps, lr)
    at, peak = np.arange(steps), max(0.0, WARM_UP * steps - 1)
    up = _arc(at / max(1e-9, peak), START, 1.0)
    down = _arc((at - peak) / max(1.0, steps - 1 - peak), 1.0, END)
    return lr * np.where(at < peak, up, down)


def _arc(progress: np.ndarray, start: float, end: float) -> np.ndarray:
    return end + (start - end) * (1 + np.cos(np.pi * progress)) / 2


BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdamW:
    """The moments of some weights, and how many steps were taken."""

    def __init__(self, weights: Sequence[Tensor], rate: Tensor, weight_decay: float) -> None:
        """Take no step yet.

        :param weights: float32, changed in place.
        :param rate: the learning rate, float32 [], read at each step.
        """
        self._weights, self._rate, self._weight_decay = [one.detach() for one in weights], rate, weight_decay
        self._means, self._squares = ([torch.zeros_like(one) for one in weights] for _ in range(2))
        self._steps = [torch.zeros((), device=one.device) for one in weights]

    def step(self, grads: list[Tensor], excess: Tensor | None = None) -> None:
        """Change the weights.

        :param grads: float32, of the shapes of the weights.
        :param excess: what the gradients are divided by first, in place and in the same pass, float32 [].
        """
        torch._foreach_add_(self._steps, 1)
        torch._fused_adamw_(
            self._weights,
            grads,
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
