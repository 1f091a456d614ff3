"""Learning rates of a fit, a number a step: constant, or one cycle."""

from __future__ import annotations

import numpy as np

WARM_UP = 0.3  # share of the cycle in which the rate rises
START, END = 1 / 25, 1 / 250_000  # of the peak rate


def learning_rates(lr: float, steps: int, schedule: str) -> np.ndarray:
    """Rates of all steps, float64 [steps], by a schedule of `methods.SCHEDULES`.

    One cycle rises from lr/25 to lr along half a cosine, then falls to nearly nothing along another (Smith and Topin,
    2018, with the cosine arcs that libraries settled on).
    """
    if schedule == "constant":
        return np.full(steps, lr)
    rising = max(1, round(WARM_UP * steps))
    up = _arc(np.arange(rising) / rising, START, 1.0)
    down = _arc(np.arange(steps - rising) / max(1, steps - rising - 1), 1.0, END)
    return lr * np.concatenate([up, down])[:steps]


def _arc(progress: np.ndarray, start: float, end: float) -> np.ndarray:
    return end + (start - end) * (1 + np.cos(np.pi * progress)) / 2
