"""Learning rates of a fit, a number a step: constant, or one cycle."""

from __future__ import annotations

import numpy as np

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
