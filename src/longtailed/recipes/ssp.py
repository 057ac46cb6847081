"""Self-supervised pre-training before imbalanced training: SSP (2006.07529) and 2107.03758.

CIFAR: 200 epochs of rotation prediction or MoCo on the long-tailed images without their labels,
then 200 epochs with labels of the same network; ResNet-32, batch 128, SGD 0.1 / 0.9 / 2e-4, five
epochs of warm-up, rate x 0.01 at 160 and 180. Cost: twice a plain run, and with MoCo 2.5 times.
Large images: 200 epochs of MoCo (ResNet-50, SGD 0.015 / 0.9 / 1e-4, batch 128, cosine rate), then
90 with labels. A pre-trained network saves the first stage:
`network.init_from=RUN 0.epochs=0`, also from a file of the authors' code; `0.epochs=0` alone gives
the row without pre-training.

Command: `longtailed train cifar10-lt-rotation-ce download=true`; for large images also
`source=ImageNet_LT_train.txt root=/images`.

Published figures are in `published.csv`. They are of the best epoch on the test split. Those of
2107.03758 (withdrawn by its author; batch 256) come from its repository's images. None of these
runs has been repeated here at full length.
"""

from __future__ import annotations

from typing import Any

from longtailed.data.settings import Data
from longtailed.nn.settings import NetworkSpec
from longtailed.recipes import large
from longtailed.recipes.cifar import Dataset
from longtailed.recipes.decoupled import AS_PUBLISHED, retraining
from longtailed.recipes.recipe import Recipe, Stage
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule

DATASETS: tuple[Dataset, ...] = ("cifar10", "cifar100")
IMBALANCES = (100, 50, 20, 10)
SMALL_MOCO_VIEW = (
    "resized_crop(32, scale=(0.2, 1)), flip, color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8), "
    "grayscale(0.2)"
)
LARGE_MOCO_VIEW = (
    "resized_crop(224, scale=(0.2, 1)), color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8), "
    "grayscale(0.2), blur(p=0.5), flip"
)
_STEPS = Schedule(kind="step", warmup=5, milestones=(0.8, 0.9), gamma=0.01)


def rotation_stage() -> Stage:
    """Return 200 epochs of rotation prediction on small images."""
    return _cifar_stage("rotation")


def moco_stage() -> Stage:
    """Return 200 epochs of MoCo on small images; these settings are ours."""
    return Stage(
        method="moco",
        options={"queue_size": 4096, "momentum": 0.99, "temperature": 0.1},
        epochs=200,
        batch_size=512,
        optimizer=Optimizer(lr=0.06, weight_decay=5e-4),
        schedule=Schedule(kind="cosine"),
    )


def _cifar_stage(method: str, **options: Any) -> Stage:
    return Stage(
        method=method,
        options=options,
        epochs=200,
        batch_size=128,
        drop_last=False,
        optimizer=Optimizer(lr=0.1, weight_decay=2e-4),
        schedule=_STEPS,
        evaluate_every=10,
    )


def _cifar(
    name: str, dataset: Dataset, imbalance: int, *stages: Stage, published: bool = True
) -> Recipe:
    """Return the stages on CIFAR; a published row holds no image out, as the authors' did."""
    ratio = "" if imbalance == 100 else f"-{imbalance}"
    with_moco = any(stage.method == "moco" for stage in stages)
    views = {"sim": SMALL_MOCO_VIEW} if with_moco else {}
    return Recipe(
        name=f"{dataset}-lt{ratio}-{name}",
        data=Data(
            source=dataset, imbalance=imbalance, holdout=0 if published else None, views=views
        ),
        network=NetworkSpec(name="resnet32"),
        stages=stages,
        precision="32",
        protocol="published" if published else "honest",
    )


def rotation(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """Rotation prediction alone, to start other runs from (`network.init_from`).

    Its classifier is not trained: the only meaningful figure of this run is the journal's
    rotation accuracy (seen on CIFAR-10 at imbalance 100: about 84 percent on test images). It
    holds no image out, because the published rows that start from it did not.
    """
    return _cifar("rotation", dataset, imbalance, rotation_stage())


def rotation_ce(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """Rotation prediction, then cross-entropy: CE (uniform) + SSP.

    The study also trained ResNet-44, -56 and -110: `network=resnet56`.
    """
    return _cifar("rotation-ce", dataset, imbalance, rotation_stage(), _cifar_stage("ce"))


def rotation_resampling(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """Rotation prediction, then cross-entropy with re-sampling: CE (balanced) + SSP.

    Images are drawn with the weights (1 - b) / (1 - b^n), b = 0.9999, as in the authors' code.
    """
    second = _cifar_stage("ce", sampler="effective-number")
    return _cifar("rotation-resampling", dataset, imbalance, rotation_stage(), second)


def rotation_class_balanced(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """Rotation prediction, then cross-entropy with class-balanced weights."""
    second = _cifar_stage("class-balanced")
    return _cifar("rotation-class-balanced", dataset, imbalance, rotation_stage(), second)


def rotation_ce_drw(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """Rotation prediction, then cross-entropy with deferred re-weighting."""
    second = _cifar_stage("ce-drw")
    return _cifar("rotation-ce-drw", dataset, imbalance, rotation_stage(), second)


def rotation_ldam(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """Rotation prediction, then LDAM without re-weighting."""
    return _cifar("rotation-ldam", dataset, imbalance, rotation_stage(), _cifar_stage("ldam"))


def rotation_ldam_drw(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """Rotation prediction, then LDAM with deferred re-weighting.

    No figure was found for imbalance 20.
    """
    stages = (rotation_stage(), _cifar_stage("ldam-drw"))
    return _cifar("rotation-ldam-drw", dataset, imbalance, *stages, published=imbalance != 20)


def rotation_ldam_drw_crt(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """Rotation prediction, LDAM with deferred re-weighting, then a re-trained classifier.

    No published figure for this chain; it shows what stages can be combined.
    """
    stages = (rotation_stage(), _cifar_stage("ldam-drw"), retraining("crt"))
    return _cifar("rotation-ldam-drw-crt", dataset, imbalance, *stages, published=False)


def moco(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """MoCo alone, to start other runs from (`network.init_from`).

    Its classifier is not trained: figures of this run mean nothing.
    """
    return _cifar("moco", dataset, imbalance, moco_stage(), published=False)


def moco_ce(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """MoCo, then cross-entropy.

    The published appendix says that it is better than no pre-training and worse than rotation. Its
    figures and settings were not found.
    """
    stages = (moco_stage(), _cifar_stage("ce"))
    return _cifar("moco-ce", dataset, imbalance, *stages, published=False)


def moco_ldam_drw_crt(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """MoCo, LDAM with deferred re-weighting, then a re-trained classifier.

    No published figure for this chain.
    """
    stages = (moco_stage(), _cifar_stage("ldam-drw"), retraining("crt"))
    return _cifar("moco-ldam-drw-crt", dataset, imbalance, *stages, published=False)


def _large(name: str, base: Recipe, batch_size: int, weight_decay: float, *stages: Stage) -> Recipe:
    """Return MoCo, then 90 epochs of labels, on the data of another recipe with ResNet-50."""
    pretraining = Stage(
        method="moco",
        options={"queue_size": 65536, "momentum": 0.999, "temperature": 0.2},
        epochs=200,
        batch_size=128,
        optimizer=Optimizer(lr=0.015, weight_decay=1e-4),
        schedule=Schedule(kind="cosine"),
    )
    sampler = "class-aware" if name.endswith("class-balanced-sampling") else "instance"
    supervised = Stage(
        method="ce",
        options={"sampler": sampler},
        epochs=90,
        batch_size=batch_size,
        optimizer=Optimizer(lr=0.2, weight_decay=weight_decay),
        schedule=Schedule(kind="cosine"),
    )
    data = base.data.model_copy(update={"views": {**base.data.views, "sim": LARGE_MOCO_VIEW}})
    return base.model_copy(
        update={
            "name": name,
            "data": data,
            "network": NetworkSpec(name="resnet50", options=large.FULL_START),
            "stages": (pretraining, supervised, *stages),
        }
    )


def imagenet_lt(variant: str = "ce") -> Recipe:
    """MoCo, then ResNet-50 with labels on ImageNet-LT, batch 128.

    `ce` draws images uniformly, `class-balanced-sampling` takes the classes in turn, and `crt`
    re-trains the classifier after the uniform run.
    """
    last = (
        (retraining("crt", epochs=10, weight_decay=5e-4, **AS_PUBLISHED["crt"]),)
        if variant == "crt"
        else ()
    )
    return _large(f"imagenet-lt-moco-{variant}", large.imagenet_lt(), 128, 5e-4, *last)


def inaturalist18(variant: str = "ce") -> Recipe:
    """MoCo, then ResNet-50 with labels on iNaturalist 2018, batch 100.

    The variants are those of ImageNet-LT.
    """
    last = (
        (retraining("crt", epochs=30, weight_decay=1e-4, **AS_PUBLISHED["crt"]),)
        if variant == "crt"
        else ()
    )
    return _large(f"inaturalist18-moco-{variant}", large.inaturalist18(), 100, 1e-4, *last)
