"""ImageNet-LT, Places-LT and iNaturalist 2018: baselines of the decoupling study (1910.09217).

The images cannot be downloaded by the library. Give the official list and the folder that its
paths start from: `longtailed train imagenet-lt-ce source=ImageNet_LT_train.txt root=/images`.
The lists of the other splits are found beside it by name. The validation list chooses the epoch;
figures are on the test list (iNaturalist: on its validation list, as published). Published figures
are in `published.csv`.

These recipes have been checked on a few steps only: nobody has trained them to the end here.
"""

from __future__ import annotations

from typing import Any

from longtailed.data.settings import Data
from longtailed.nn.settings import NetworkSpec
from longtailed.recipes.recipe import Recipe, Stage
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule

INATURALIST_MEAN = (0.466, 0.471, 0.380)
INATURALIST_STD = (0.195, 0.194, 0.192)
FULL_START: dict[str, Any] = {"zero_init_last": False}
"""How the authors' networks start: no residual branch ends with a scale of 0, as timm's do."""


def _stage(method: str, weight_decay: float = 5e-4, **options: Any) -> Stage:
    return Stage(
        method=method,
        options=options,
        epochs=90,
        batch_size=512,
        optimizer=Optimizer(lr=0.2, weight_decay=weight_decay),
        schedule=Schedule(kind="cosine"),
    )


def imagenet_lt(method: str = "ce", **options: Any) -> Recipe:
    """ResNeXt-50 on ImageNet-LT, 90 epochs of 226 steps.

    The authors' class-balanced sampling takes the classes in turn and four images of each
    (`sampler=class-aware`).
    """
    sampler = str(options.get("sampler", ""))
    named = {"class-aware": "class-balanced"}.get(sampler, sampler)
    return Recipe(
        name="-".join(["imagenet-lt", method, *([named] if named else [])]),
        data=Data(source="ImageNet_LT_train.txt"),
        network=NetworkSpec(name="resnext50_32x4d", options=FULL_START),
        stages=(_stage(method, **options),),
        precision="32",
    )


def imagenet_lt_ldam_drs() -> Recipe:
    """ResNeXt-50 on ImageNet-LT with LDAM and deferred re-sampling, 100 epochs of batch 256.

    The setting in which RSG was measured; the figure without RSG was not found.
    """
    stage = Stage(
        method="ldam-drs",
        options={"max_margin": 0.3, "scale": 30.0, "sampler_start": 80},
        epochs=100,
        batch_size=256,
        optimizer=Optimizer(lr=0.1, weight_decay=2e-4),
        schedule=Schedule(kind="step", warmup=5, milestones=(59, 79, 94), gamma=0.1),
    )
    return imagenet_lt().model_copy(update={"name": "imagenet-lt-ldam-drs", "stages": (stage,)})


def places_lt(method: str = "ce") -> Recipe:
    """ResNet-152 with ImageNet weights on Places-LT, 30 epochs of 244 steps.

    The weights are torchvision's first ones, the authors'. The published run trained only the last
    block and the classifier; here all layers are trained.
    """
    stage = Stage(
        method=method,
        epochs=30,
        batch_size=256,
        optimizer=Optimizer(lr=0.01, weight_decay=5e-4),
        schedule=Schedule(kind="cosine"),
    )
    return Recipe(
        name=f"places-lt-{method}",
        data=Data(source="Places_LT_train.txt"),
        network=NetworkSpec(name="resnet152.tv_in1k", pretrained=True),
        stages=(stage,),
        precision="32",
    )


def inaturalist18(method: str = "ce") -> Recipe:
    """ResNet-50 on iNaturalist 2018, 90 epochs of 854 steps, evaluated on the validation list."""
    return Recipe(
        name=f"inaturalist18-{method}",
        data=Data(
            source="iNaturalist18_train.txt",
            eval_split="val",
            holdout=0,
            mean=INATURALIST_MEAN,
            std=INATURALIST_STD,
            views={"standard": "resized_crop(224), flip"},
        ),
        network=NetworkSpec(name="resnet50", options=FULL_START),
        stages=(_stage(method, weight_decay=1e-4),),
        precision="32",
    )
