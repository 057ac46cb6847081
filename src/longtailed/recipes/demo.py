"""The demonstration: scikit-learn's real 8 x 8 digits, made long-tailed; no download."""

from __future__ import annotations

from longtailed.data.settings import Data
from longtailed.nn.settings import NetworkSpec
from longtailed.recipes.recipe import Recipe, Stage
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule


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


def digits_chain() -> Recipe:
    """Rotation prediction, LDAM-DRW, then a re-trained classifier, on digits at imbalance 50.

    Three stages in one command, a minute on two CPU cores. No published figure exists. Turned
    digits are a poor puzzle (a 6 becomes a 9): this shows the mechanism, not its merit.
    """
    base = digits("ldam-drw")
    supervised = base.stages[0]
    rotation = supervised.model_copy(update={"method": "rotation", "epochs": 30})
    retrained = supervised.model_copy(
        update={"method": "crt", "epochs": 20, "schedule": Schedule(kind="cosine")}
    )
    stages = (rotation, supervised, retrained)
    return base.model_copy(update={"name": "digits-rotation-ldam-drw-crt", "stages": stages})
