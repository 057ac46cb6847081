"""CIFAR-10-LT and CIFAR-100-LT: the baselines of LDAM-DRW's comparison and of its successors.

All train ResNet-32 for 200 epochs with SGD 0.1 / 0.9 / 2e-4, batch 128, five epochs of warm-up,
rate x 0.01 at 160 and 180, on the subset that NumPy's legacy seed 0 chooses. At imbalance 100
that is 96 steps an epoch for CIFAR-10 (12,406 images) and 84 for CIFAR-100 (10,847).

A row with a published figure trains on all of them, as the published run did, and has no held-out
images to choose an epoch on; one without a figure holds out 10 images of each class.

The figures are in `published.csv`. They are of the best epoch on the test split. The "published"
protocol reports such a figure beside the last epoch's: the best of every tenth epoch here, because
scoring each one costs a third of a run.
"""

from __future__ import annotations

from typing import Literal

from longtailed.data.settings import Data
from longtailed.nn.settings import NetworkSpec
from longtailed.recipes.recipe import Recipe, Stage
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule

Dataset = Literal["cifar10", "cifar100"]


def _recipe(dataset: Dataset, method: str, published: bool = True) -> Recipe:
    return Recipe(
        name=f"{dataset}-lt-{method}",
        data=Data(source=dataset, imbalance=100, holdout=0 if published else None),
        network=NetworkSpec(name="resnet32"),
        stages=(
            Stage(
                method=method,
                epochs=200,
                batch_size=128,
                drop_last=False,
                optimizer=Optimizer(lr=0.1, weight_decay=2e-4),
                schedule=Schedule(kind="step", warmup=5, milestones=(0.8, 0.9), gamma=0.01),
                evaluate_every=10,
            ),
        ),
        precision="32",
        protocol="published" if published else "honest",
    )


def ce(dataset: Dataset) -> Recipe:
    """Plain cross-entropy."""
    return _recipe(dataset, "ce")


def focal(dataset: Dataset) -> Recipe:
    """Focal loss, gamma 1."""
    return _recipe(dataset, "focal")


def class_balanced(dataset: Dataset) -> Recipe:
    """Cross-entropy with class-balanced weights from the start."""
    return _recipe(dataset, "class-balanced")


def class_balanced_focal(dataset: Dataset) -> Recipe:
    """Focal loss with class-balanced weights from the start."""
    return _recipe(dataset, "class-balanced-focal")


def class_balanced_sampling(dataset: Dataset) -> Recipe:
    """Cross-entropy with class-balanced re-sampling from the start.

    Images are drawn with the weights (1 - b) / (1 - b^n), b = 0.9999, of the published script.
    The published script's sampler was never used by its loader; this one is.
    """
    recipe = _recipe(dataset, "class-balanced-sampling")
    stage = recipe.stages[0].model_copy(update={"options": {"sampler": "effective-number"}})
    return recipe.model_copy(update={"stages": (stage,)})


def ldam(dataset: Dataset) -> Recipe:
    """LDAM without re-weighting."""
    return _recipe(dataset, "ldam")


def ldam_drw(dataset: Dataset) -> Recipe:
    """LDAM with deferred re-weighting."""
    return _recipe(dataset, "ldam-drw")


def ce_drw(dataset: Dataset) -> Recipe:
    """Cross-entropy with deferred re-weighting; its figures are of a later study."""
    return _recipe(dataset, "ce-drw")


def balanced_softmax(dataset: Dataset) -> Recipe:
    """Balanced softmax: logit adjustment with tau 1.

    The figures for CIFAR-100 were published with stronger augmentation and other settings than
    here. No figure was found for CIFAR-10.
    """
    return _recipe(dataset, "balanced-softmax", published=dataset == "cifar100")


def mixup_drw(dataset: Dataset) -> Recipe:
    """Mixup with deferred re-weighting.

    The figure for CIFAR-10 is an imbalanced-learning benchmark's, with stronger augmentation. No
    figure was found for CIFAR-100.
    """
    return _recipe(dataset, "mixup-drw", published=dataset == "cifar10")
