"""The recipe of a run that is put together from data, method and network on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longtailed.methods import method_class
from longtailed.nn.settings import NetworkSpec
from longtailed.recipes.override import override
from longtailed.recipes.recipe import Recipe, Stage
from longtailed.training import optim
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule

FILE_SUFFIXES = {".txt", ".lst", ".csv", ".tsv", ".parquet"}
FROM_SCRATCH: dict[str, Any] = {
    "epochs": 200,
    "optimizer": Optimizer(**optim.FROM_SCRATCH["sgd"]),
    "schedule": Schedule(kind="step", warmup=0.025, milestones=(0.8, 0.9), gamma=0.01),
}
"""LDAM-DRW's training of ResNet-32 on CIFAR (arXiv 1906.07413), in fractions of the run."""

FINE_TUNING: dict[str, Any] = {
    "epochs": 30,
    "batch_size": 64,
    "optimizer": Optimizer(**optim.FINE_TUNING["sgd"]),
    "schedule": Schedule(kind="cosine", warmup=0.05),
}
"""Cautious settings for fine-tuning a pretrained backbone on a folder of images."""


def compose(
    source: str,
    method: str = "ce",
    network: str = "resnet32",
    imbalance: float | None = None,
    *,
    fine_tuning: bool = False,
) -> Recipe:
    """Return a recipe for any data, method and network with the field's usual settings.

    `fine_tuning` says that the network starts from trained weights, which are then changed gently.
    Raises `LongTailedError` for a bad value.
    """
    method_class(method)
    settings = FINE_TUNING if fine_tuning else FROM_SCRATCH
    path = Path(source)
    stem = (path.stem if path.suffix in FILE_SUFFIXES else path.name) or "data"
    shown = network.rpartition("://")[2].replace("/", "_").replace(":", "_")
    ratio = "" if imbalance is None else f"-{imbalance:g}"
    recipe = Recipe(
        name=f"{stem}{ratio}-{method}-{shown}",
        network=NetworkSpec(name=network),
        stages=(Stage(method=method, **settings),),
    )
    return override(recipe, {"data.source": source, "data.imbalance": imbalance})
