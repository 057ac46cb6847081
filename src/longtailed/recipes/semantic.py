"""Semantic augmentation: ISDA, MetaSAug (2103.12579) and RISDA (2112.07928).

On CIFAR all train ResNet-32 for 200 epochs with SGD 0.1 / 0.9 (Nesterov) / 5e-4, batch 100, no
warm-up, rate x 0.01 from the 0-based epochs 159 and 179, reflected borders; the second stage begins
at epoch 160. MetaSAug sets 10 images of each class aside first, so its largest class has 4,990 or
490 images and its figures are not on the training set of other methods. The images of the authors'
subset are not reproduced, only its class sizes.

Published figures are in `published.csv`; on CIFAR they are of the epoch that is best on the test
split. The "published" protocol reports the best of every tenth epoch beside the last one. None of
these runs has been repeated here at full length.

Run with `longtailed train NAME`; for images that cannot be downloaded see `recipes.large`.
"""

from __future__ import annotations

from typing import Any, Literal

from longtailed.data.settings import Data
from longtailed.nn.settings import NetworkSpec
from longtailed.recipes.large import FULL_START, INATURALIST_MEAN, INATURALIST_STD
from longtailed.recipes.recipe import Recipe, Stage
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule

Dataset = Literal["cifar10", "cifar100"]
DATASETS: tuple[Dataset, ...] = ("cifar10", "cifar100")
IMBALANCES = (10, 20, 50, 100, 200)
METASAUG_MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
METASAUG_STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)
REFLECTED = {"standard": "pad_crop(4, mode='reflect'), flip"}
PLAIN_CROP = {"standard": "resized_crop(224), flip"}
RISDA_STRENGTHS = {("cifar100", 200): (0.5, 1.0), ("cifar100", 100): (0.5, 0.75)}
PUBLISHED_RISDA = (("cifar10", 100), ("cifar100", 100), ("cifar100", 50), ("cifar100", 10))


def _cifar(
    name: str, data: Data, method: str, options: dict[str, Any], published: bool = True
) -> Recipe:
    """Return 200 epochs of ResNet-32; a published row holds no image out, as the authors' did."""
    stage = Stage(
        method=method,
        options=options,
        epochs=200,
        batch_size=100,
        drop_last=False,
        optimizer=Optimizer(lr=0.1, weight_decay=5e-4, nesterov=True),
        schedule=Schedule(kind="step", milestones=(0.795, 0.895), gamma=0.01),
        evaluate_every=10,
        checkpoint_every=10,
    )
    if published:
        data = data.model_copy(update={"holdout": 0})
    return Recipe(
        name=name,
        data=data,
        network=NetworkSpec(name="resnet32"),
        stages=(stage,),
        precision="32",
        protocol="published" if published else "honest",
    )


def _name(dataset: str, imbalance: int, method: str) -> str:
    """Return a recipe's name; an imbalance of 100 is not named."""
    return f"{dataset}-lt-{method}" if imbalance == 100 else f"{dataset}-lt-{imbalance}-{method}"


def isda(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """ISDA from the first epoch on long-tailed CIFAR, trained as MetaSAug is; no class weights.

    Published: no figure for this setting. Cost: 200 epochs of cross-entropy.
    """
    data = Data(source=dataset, imbalance=imbalance, views=REFLECTED)
    return _cifar(_name(dataset, imbalance, "isda"), data, "isda", {}, published=False)


def metasaug(dataset: Dataset, imbalance: int = 100, criterion: str = "ce") -> Recipe:
    """MetaSAug on long-tailed CIFAR with cross-entropy or LDAM margins, ResNet-32.

    Cost: of 200 epochs the last 40 take about 3.5 times as long as with cross-entropy.
    The authors' scripts set a strength of 0.75 for LDAM on CIFAR-100 at imbalance 20 and 50; the
    others have their code's default, and the code for cross-entropy is not public.
    """
    method = "metasaug" if criterion == "ce" else f"metasaug-{criterion}"
    data = Data(
        source=dataset,
        imbalance=imbalance,
        meta_per_class=10,
        views=REFLECTED,
        mean=METASAUG_MEAN,
        std=METASAUG_STD,
    )
    strong = (criterion, dataset) == ("ldam", "cifar100") and imbalance in (20, 50)
    options = {"strength": 0.75} if strong else {}
    return _cifar(_name(dataset, imbalance, method), data, method, options)


def risda(dataset: Dataset, imbalance: int = 100) -> Recipe:
    """RISDA on long-tailed CIFAR, ResNet-32.

    The relations of classes come from the plain epoch with the best training accuracy, as in the
    authors' code. Cost: about 200 epochs of cross-entropy and 160 passes over the training images
    without gradients; `graph=running`, the method's default, saves those passes.
    No figure was found for CIFAR-10 but at imbalance 100, nor for CIFAR-100 at 200 and 20. alpha
    and beta are the authors' for CIFAR-100 at 200 and 100, and their code's defaults elsewhere.
    """
    data = Data(source=dataset, imbalance=imbalance, subset_seed=42, views=REFLECTED)
    options: dict[str, Any] = {"graph": "best"}
    if (dataset, imbalance) in RISDA_STRENGTHS:
        alpha, beta = RISDA_STRENGTHS[dataset, imbalance]
        options |= {"alpha": alpha, "beta": beta}
    published = (dataset, imbalance) in PUBLISHED_RISDA
    return _cifar(_name(dataset, imbalance, "risda"), data, "risda", options, published)


def _metasaug_large(
    name: str, data: Data, epochs: int, weight_decay: float, **options: Any
) -> Recipe:
    """Cross-entropy for the network, then MetaSAug for the classifier alone.

    `epochs` and `weight_decay` are the first stage's, as in the decoupling study.
    """
    plain = Stage(
        method="ce",
        epochs=epochs,
        batch_size=512,
        optimizer=Optimizer(lr=0.2, weight_decay=weight_decay),
        schedule=Schedule(kind="cosine"),
    )
    classifier = Stage(
        method="metasaug",
        options={"start": 0, "covariance": "diagonal", "trainable": "classifier", **options},
        epochs=20,
        batch_size=256,
        drop_last=False,
        optimizer=Optimizer(lr=3e-4, weight_decay=5e-4, nesterov=True),
        schedule=Schedule(kind="constant"),
    )
    network, stages = NetworkSpec(name="resnet50", options=FULL_START), (plain, classifier)
    return Recipe(name=name, data=data, network=network, stages=stages, precision="32")


def imagenet_lt_metasaug() -> Recipe:
    """MetaSAug on ImageNet-LT: ResNet-50 with cross-entropy, then 20 epochs of the classifier.

    The meta set is half of the validation list; the other half chooses the epoch. Cost: 90 epochs,
    and 20 of forward passes. A network that was trained before saves the first stage:
    `network.init_from=RUN 0.epochs=0`.
    """
    data = Data(source="ImageNet_LT_train.txt", meta_per_class=10, meta_source="val")
    return _metasaug_large("imagenet-lt-metasaug", data, 90, 5e-4, meta_view="test")


def _inaturalist(year: int, meta_per_class: int | None = None) -> Data:
    return Data(
        source=f"iNaturalist{year}_train.txt",
        eval_split="val",
        holdout=0,
        meta_per_class=meta_per_class,
        meta_source="shared",
        mean=INATURALIST_MEAN,
        std=INATURALIST_STD,
        views=PLAIN_CROP,
    )


def inaturalist_metasaug(year: int) -> Recipe:
    """MetaSAug on iNaturalist 2017 or 2018: ResNet-50, then 20 epochs of the classifier.

    5 (2017) or 2 (2018) training images of each class are also the meta set. Cost: 200 epochs, and
    20 of forward passes; `network.init_from=RUN 0.epochs=0` starts from a trained network.
    """
    data = _inaturalist(year, 5 if year == 17 else 2)
    return _metasaug_large(f"inaturalist{year}-metasaug", data, 200, 1e-4)


def _risda_large(name: str, data: Data, head_classes: float) -> Recipe:
    stage = Stage(
        method="risda",
        options={
            "alpha": 0.0,
            "beta": 7.5,
            "covariance": "diagonal",
            "head_classes": head_classes,
            "mean_shift": "off",
            "graph": "last",
            "freeze_start": 0.9,
        },
        epochs=100,
        batch_size=128,
        drop_last=False,
        optimizer=Optimizer(lr=0.1, weight_decay=2e-4),
        schedule=Schedule(kind="step", warmup=0.05, milestones=(0.59, 0.79), gamma=0.1),
    )
    network = NetworkSpec(name="resnet50", options=FULL_START)
    return Recipe(name=name, data=data, network=network, stages=(stage,), precision="32")


def imagenet_lt_risda() -> Recipe:
    """RISDA on ImageNet-LT, ResNet-50 from scratch, without the shift of means.

    Cost: 100 epochs of 905 steps.
    """
    data = Data(source="ImageNet_LT_train.txt", views=PLAIN_CROP)
    return _risda_large("imagenet-lt-risda", data, 385)


def inaturalist18_risda() -> Recipe:
    """RISDA on iNaturalist 2018 with the settings of ImageNet-LT, as the authors suggest.

    Their code for it is not public; the share of head classes is ImageNet-LT's. Cost: 100 epochs of
    3,418 steps.
    """
    return _risda_large("inaturalist18-risda", _inaturalist(18), 0.385)
