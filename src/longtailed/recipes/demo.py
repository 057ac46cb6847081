"""The demonstration: scikit-learn's real 8 x 8 digits, made long-tailed; no download."""

from __future__ import annotations

from longtailed.optim import Optimizer
from longtailed.recipes.recipe import Data, NetworkSpec, Recipe, Stage
from longtailed.schedules import Schedule


def digits(method: str = "ldam-drw") -> Recipe:
    """ResNet-20 on digits at imbalance 50, half a minute on two CPU cores.

    No published figure exists; run `longtailed demo` to compare cross-entropy and LDAM-DRW.
    """
    return Recipe(
        name=f"digits-{method}",
        data=Data(source="digits", imbalance=50, holdout=10),
        network=NetworkSpec(name="resnet20"),
        stages=(
            Stage(
                method=method,
                epochs=60,
                batch_size=32,
                optimizer=Optimizer(lr=0.1, weight_decay=5e-4),
                schedule=Schedule(kind="step", warmup=0.05, milestones=(0.8, 0.9), gamma=0.1),
            ),
        ),
    )
