"""RSG (arXiv 2106.09859): the rows of its paper, on long-tailed CIFAR and three large sets.

Everywhere generation begins together with the re-weighting or re-sampling, one epoch after the
learning rate's first drop, and the first fifth of the classes by size are head classes. The
vectors of the MV loss are the authors' (`layout=legacy`): rows of memory rather than the channels
at a pixel (`layout=channels`, the method's default). An epoch's last partial batch is left out. To
train the same without the generator, name the method: `method=ldam-drw`, `method=ce`,
`method=focal` (`method=ldam-drs` and its options for the large sets).

Published figures are in `published.csv`. The authors chose the epoch on the test split (CIFAR) or
on the validation list. Other rows of the paper's table were not found. Nobody has trained these
recipes to the end here.
"""

from __future__ import annotations

from typing import Any, Literal

from longtailed.data.settings import Data
from longtailed.nn.settings import NetworkSpec
from longtailed.recipes import large
from longtailed.recipes.recipe import Recipe, Stage
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule

Dataset = Literal["cifar10", "cifar100"]
Profile = Literal["exp", "step"]
PLAIN_CROP = {"standard": "resized_crop(224), flip"}


def _cifar(dataset: Dataset, profile: Profile, method: str) -> Recipe:
    """Return 200 epochs of ResNet-32 on the first images of each class in file order.

    The rows whose published figure is known hold no image out, as the authors' runs did.
    """
    kind = "lt" if profile == "exp" else "step"
    published = kind == "lt" and method == "rsg-ldam-drw"
    return Recipe(
        name=f"{dataset}-{kind}-{method}",
        data=Data(
            source=dataset,
            imbalance=100 if profile == "exp" else 50,
            profile=profile,
            selection="first",
            holdout=0 if published else None,
        ),
        network=NetworkSpec(name="resnet32"),
        stages=(
            Stage(
                method=method,
                options={"generate_start": 0.8, "layout": "legacy"},
                epochs=200,
                batch_size=128,
                optimizer=Optimizer(lr=0.1, weight_decay=2e-4),
                schedule=Schedule(kind="step", warmup=5, milestones=(0.795, 0.895), gamma=0.01),
                evaluate_every=10,
                checkpoint_every=10,
            ),
        ),
        precision="32",
        protocol="published" if published else "honest",
    )


def ldam_drw(dataset: Dataset, profile: Profile = "exp") -> Recipe:
    """RSG with LDAM and deferred re-weighting, at imbalance 100 (exponential) or 50 (step).

    `longtailed train cifar10-lt-rsg-ldam-drw imbalance=50` trains the other published ratio. No
    figure was found for step imbalance, nor for DenseNet-40 and ResNeXt-29 (`network=densenet40`,
    `network=resnext29`).
    """
    return _cifar(dataset, profile, "rsg-ldam-drw")


def focal(dataset: Dataset, profile: Profile = "exp") -> Recipe:
    """RSG with the focal loss, gamma 1, at imbalance 100 (exponential) or 50 (step).

    No published figure was found.
    """
    return _cifar(dataset, profile, "rsg-focal")


def ce(dataset: Dataset, profile: Profile = "exp") -> Recipe:
    """RSG with cross-entropy, at imbalance 100 (exponential) or 50 (step).

    No published figure was found.
    """
    return _cifar(dataset, profile, "rsg")


def imagenet_lt() -> Recipe:
    """ResNeXt-50 on ImageNet-LT with RSG, LDAM and deferred re-sampling.

    100 epochs of batch 256.
    """
    stage = _large_stage(100, 2e-4, (59, 79, 94), start=80, warmup=5, max_margin=0.3, scale=30.0)
    name = "imagenet-lt-rsg-ldam-drs"
    return large.imagenet_lt().model_copy(update={"name": name, "stages": (stage,)})


def places_lt() -> Recipe:
    """ResNet-152 with ImageNet weights on Places-LT with RSG, LDAM and deferred re-sampling.

    30 epochs of batch 256, all layers trained, without colour jitter.
    """
    stage = _large_stage(30, 1e-4, (9, 19), start=10, lr=0.01, max_margin=0.2, scale=50.0)
    recipe = large.places_lt()
    data = recipe.data.model_copy(update={"views": PLAIN_CROP})
    update = {"name": "places-lt-rsg-ldam-drs", "data": data, "stages": (stage,)}
    return recipe.model_copy(update=update)


def inaturalist18() -> Recipe:
    """ResNet-50 on iNaturalist 2018 with RSG, LDAM and deferred re-sampling, 180 epochs.

    The generator's centres and gates are 250 million numbers, with momentum and gradients 3 GB.
    """
    stage = _large_stage(180, 5e-5, (99, 139, 169), start=140, warmup=5, max_margin=0.1, scale=50.0)
    recipe = large.inaturalist18()
    data = recipe.data.model_copy(update={"views": {}})  # with colour jitter, as for ImageNet-LT
    update = {"name": "inaturalist18-rsg-ldam-drs", "data": data, "stages": (stage,)}
    return recipe.model_copy(update=update)


def _large_stage(
    epochs: int,
    weight_decay: float,
    milestones: tuple[int, ...],
    *,
    start: int,
    lr: float = 0.1,
    warmup: int = 0,
    **margins: Any,
) -> Stage:
    return Stage(
        method="rsg-ldam-drs",
        options={
            **margins,
            "sampler_start": start,
            "generate_start": start,
            "layout": "legacy",
        },
        epochs=epochs,
        batch_size=256,
        optimizer=Optimizer(lr=lr, weight_decay=weight_decay),
        schedule=Schedule(kind="step", warmup=warmup, milestones=milestones, gamma=0.1),
    )
