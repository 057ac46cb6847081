"""Learning rates against the published schedules and their explicit formulas."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from longtailed.data.positions import epoch_at
from longtailed.training.schedules import Schedule

GOLDEN = Path(__file__).parents[1] / "golden"


def rates(schedule: Schedule, lr: float, epochs: int) -> list[float]:
    return [lr * schedule.factor(epoch, epochs) for epoch in range(epochs)]


@pytest.mark.parametrize("milestones", [(160, 180), (0.8, 0.9)])
def test_ssp_schedule(milestones):
    golden = np.load(GOLDEN / "ssp_schedule.npz")["lr_ssp"]
    schedule = Schedule(kind="step", warmup=5, milestones=milestones, gamma=0.01)
    np.testing.assert_allclose(rates(schedule, 0.1, 200), golden, rtol=1e-9)


CONCUTMIX = {
    "cifar_200": (Schedule(kind="step", warmup=5, milestones=(160, 180), gamma=0.1), 0.15, 200),
    "cifar_400": (Schedule(kind="step", warmup=10, milestones=(360, 380), gamma=0.1), 0.15, 400),
    "imagenet_cos_90": (Schedule(kind="cosine", cosine_shift=1), 0.1, 90),
    "imagenet_cos_100": (Schedule(kind="cosine", cosine_shift=1), 0.1, 100),
    "imagenet_cos_180": (Schedule(kind="cosine", cosine_shift=1), 0.1, 180),
    "inat_cos_100": (Schedule(kind="cosine", cosine_shift=1), 0.2, 100),
    "cos_warm_0": (Schedule(kind="cosine", warmup=5, cosine_shift=1), 0.1, 30),
}


@pytest.mark.parametrize("name", CONCUTMIX)
def test_concutmix_schedules(name):
    golden = np.load(GOLDEN / "concutmix_lr_schedule.npz")
    schedule, lr, epochs = CONCUTMIX[name]
    np.testing.assert_allclose(rates(schedule, lr, epochs), golden[name], rtol=1e-6, atol=1e-12)


def test_cosine_without_shift_starts_at_the_full_rate():
    schedule = Schedule(kind="cosine")
    expected = [0.5 * (1 + math.cos(math.pi * e / 10)) for e in range(10)]
    assert rates(schedule, 1.0, 10) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("position", "epochs", "expected"),
    [
        (160, 200, 160),
        (0.8, 200, 160),
        (0.9, 200, 180),
        (0.8, 5, 4),
        (0.9, 5, 5),
        (0, 7, 0),
        (1, 7, 1),
    ],
)
def test_positions(position, epochs, expected):
    assert epoch_at(position, epochs) == expected
