"""Decoupled training (1910.09217): features first, then a classifier on the frozen backbone.

The first stage is that of `recipes.large` or `recipes.cifar`. In the second cRT and LWS train a new
or a re-scaled classifier under class-aware sampling; tau-normalisation and NCM train nothing. On
CIFAR, where nothing is published, it takes seconds, because the features of all images are computed
once. On large images cRT and LWS do what the authors' code does: augmented images go through a
backbone whose batch statistics go on changing. There too `1.features=cached 1.batch_norm=eval`
takes minutes instead of hours. An epoch has as many steps as full batches, as theirs does. A
network that was trained before saves the first stage: `network.init_from=RUN 0.epochs=0`.

Command: `longtailed train cifar10-lt-crt download=true`; for large images
`longtailed train imagenet-lt-crt source=ImageNet_LT_train.txt root=/images`.

Published figures are in `published.csv`. Nobody has trained these recipes to the end here.
"""

from __future__ import annotations

from typing import Any

from longtailed.recipes import cifar, large
from longtailed.recipes.cifar import Dataset
from longtailed.recipes.recipe import Recipe, Stage
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule

CLASSIFIERS = ("crt", "lws", "tau-norm", "ncm")
AS_PUBLISHED: dict[str, dict[str, Any]] = {
    method: {"features": "fresh", "batch_norm": "train"} for method in ("crt", "lws")
}
"""What the authors' second stage does with the frozen backbone."""


def retraining(
    method: str,
    epochs: int = 30,
    batch_size: int = 512,
    lr: float = 0.2,
    weight_decay: float = 2e-4,
    **options: Any,
) -> Stage:
    """Return a stage on the frozen backbone; 30 epochs on small images is our choice."""
    if method in ("tau-norm", "ncm"):
        return Stage(method=method, options=options, epochs=0)
    return Stage(
        method=method,
        options=options,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=Optimizer(lr=lr, weight_decay=weight_decay),
        schedule=Schedule(kind="cosine"),
        evaluate_every=10,
    )


def cifar_lt(dataset: Dataset, method: str) -> Recipe:
    """Cross-entropy, then a classifier on the frozen backbone, on CIFAR at imbalance 100.

    No published figure for these settings. 10 images of each class are set aside first, on which
    tau or the epoch is chosen.
    """
    first = cifar.ce(dataset).stages[0]
    return _unpublished(dataset, f"{dataset}-lt-{method}", first, retraining(method))


def cifar_reweighted(dataset: Dataset) -> Recipe:
    """Cross-entropy, then a new classifier with class-balanced weights (2107.03758).

    200 epochs each, the first at a rate of 0.01 and the second, without re-sampling, at 0.1; in
    both the rate drops once, at epoch 160, as in the authors' code. They begin the second from a
    SimSiam network of their own, which is not public; here it begins from the first. No
    figure was published.
    """
    base = cifar.ce(dataset)
    schedule = base.stages[0].schedule.model_copy(update={"milestones": (0.8,)})
    trained = base.stages[0].model_copy(update={"schedule": schedule})
    slower = trained.optimizer.model_copy(update={"lr": 0.01})
    first = trained.model_copy(update={"optimizer": slower})
    second = trained.model_copy(
        update={
            "method": "crt",
            "options": {"sampler": "instance", "weighting": "class-balanced"},
        }
    )
    return _unpublished(dataset, f"{dataset}-lt-crt-class-balanced", first, second)


def _unpublished(dataset: Dataset, name: str, *stages: Stage) -> Recipe:
    """Return stages on CIFAR that no figure is published of, with images held out."""
    base = cifar.ce(dataset)
    data = base.data.model_copy(update={"holdout": None})
    update = {"name": name, "data": data, "stages": stages, "protocol": "honest"}
    return base.model_copy(update=update)


def imagenet_lt(method: str) -> Recipe:
    """ResNeXt-50 on ImageNet-LT with cross-entropy, then a classifier on the frozen backbone.

    tau is chosen on the validation list.
    """
    epochs = 5 if method == "lws" else 10
    second = retraining(method, epochs, weight_decay=5e-4, **AS_PUBLISHED.get(method, {}))
    return _second(large.imagenet_lt(), f"imagenet-lt-{method}", second)


def places_lt(method: str) -> Recipe:
    """ResNet-152 on Places-LT with cross-entropy, then a classifier on the frozen backbone.

    The published first stage trained the last block and the classifier alone; here all layers are
    trained.
    """
    epochs = 5 if method == "lws" else 10
    second = retraining(method, epochs, 256, 0.1, 5e-4, **AS_PUBLISHED.get(method, {}))
    return _second(large.places_lt(), f"places-lt-{method}", second)


def inaturalist18(method: str) -> Recipe:
    """ResNet-50 on iNaturalist 2018 with cross-entropy, then a classifier on the frozen backbone.

    The authors chose tau on the images of the figures. Here it is chosen on a balanced resample of
    the training images, because a class of two images leaves none to hold out. Of
    tau-normalisation with ResNet-50 only the groups were found (after 200 epochs, copied): many /
    medium / few 71.1 / 68.9 / 69.3.
    """
    epochs = 5 if method == "lws" else 30
    options = {"tau-norm": {"select": "train"}, **AS_PUBLISHED}.get(method, {})
    second = retraining(method, epochs, weight_decay=1e-4, **options)
    return _second(large.inaturalist18(), f"inaturalist18-{method}", second)


def _second(base: Recipe, name: str, stage: Stage) -> Recipe:
    return base.model_copy(update={"name": name, "stages": (*base.stages, stage)})
