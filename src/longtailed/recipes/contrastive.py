"""Balanced contrastive learning (arXiv 2207.09052) and ConCutMix (arXiv 2407.04911).

CIFAR: ResNet-32 with a classifier that starts as `nn.Linear` does (`head_init="default"`), SGD
0.15 / 0.9 / 5e-4, batch 256, rate x 0.1 twice, five epochs of warm-up (ten of 400), AutoAugment on
the classified view and SimCLR's on the two others: three times the network's work of a plain run.
At imbalance 100 that is 48 steps an epoch for CIFAR-10 and 42 for CIFAR-100.
Large images: cosine classifier, SGD 0.9, cosine rate, batch 256 (see each recipe), bfloat16.

Command: `longtailed train cifar100-lt-concutmix download=true`; for large images also
`source=ImageNet_LT_train.txt root=/images`.

Published figures are in `published.csv`. They are of the best of all epochs, chosen on the images
they are on: CIFAR's test split, and the 20,000 *validation* images of ImageNet-LT. The CIFAR
recipes report that figure too, beside the last epoch's. For large images figures are on the test
split (iNaturalist: on its validation list), and a validation list beside it chooses the epoch; the
published protocol is `eval_split=val holdout=0 protocol=published`. The strength tau of the logit
adjustment was tuned for each row, presumably on the same images. Published CIFAR runs of ConCutMix
had one sequence of boxes whatever their seed; here it follows the seed. On several devices each
process contrasts its own images and draws its own boxes, where the authors' code treats the batch
as one.

Status: none of these recipes has been trained to its end here.
"""

from __future__ import annotations

from typing import Any

from longtailed.data import view_preset
from longtailed.data.settings import Data
from longtailed.nn.settings import NetworkSpec
from longtailed.recipes.cifar import Dataset
from longtailed.recipes.large import INATURALIST_MEAN, INATURALIST_STD
from longtailed.recipes.recipe import Recipe, Stage
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule

TAU = {
    ("cifar10", 10): 1.0,
    ("cifar10", 50): 0.81,
    ("cifar10", 100): 0.85,
    ("cifar100", 10): 1.0,
    ("cifar100", 50): 0.75,
    ("cifar100", 100): 0.9,
}
ABLATION: dict[str, dict[str, Any]] = {
    "no-mixing": {"mix_probability": 0.0},
    "area-only": {"omega": 0.0},
    **{
        f"semantic-{percent}": {"omega": percent / 100, "normalizer": "max"}
        for percent in (5, 10, 20, 50)
    },
    "ours-mixed-prior": {"omega": 0.0, "prior": "mixed", "tau": 1.0},
}
"""What each ablation changes in ConCutMix."""


def _cifar(
    name: str,
    dataset: Dataset,
    method: str,
    imbalance: int,
    epochs: int,
    subset_seed: int = 0,
    **options: Any,
) -> Recipe:
    long = epochs > 200
    milestones = (0.9, 0.95) if long else (0.8, 0.9)
    return Recipe(
        name=f"{dataset}-lt-{name}",
        data=Data(source=dataset, imbalance=imbalance, holdout=0, subset_seed=subset_seed),
        # nn.Linear's start: our CIFAR ResNets' own is 2.4 times wider.
        network=NetworkSpec(name="resnet32", options={"head_init": "default"}),
        stages=(
            Stage(
                method=method,
                options=options,
                epochs=epochs,
                batch_size=256,
                drop_last=False,
                optimizer=Optimizer(lr=0.15, weight_decay=5e-4),
                schedule=Schedule(
                    kind="step", warmup=10 if long else 5, milestones=milestones, gamma=0.1
                ),
            ),
        ),
        precision="32",
        protocol="published",
    )


def _row(method: str, imbalance: int, epochs: int, usual: int = 200) -> str:
    """The name of a row: what differs from imbalance 100 and the usual number of epochs."""
    parts = [method] if imbalance == 100 else [str(imbalance), method]
    return "-".join(parts + ([f"{epochs}-epochs"] if epochs != usual else []))


def cifar_bcl(dataset: Dataset, imbalance: int = 100, epochs: int = 200) -> Recipe:
    """Balanced contrastive learning on CIFAR; its own recipe was never released.

    The published runs also used Cutout on the classified view:
    `views.strong="pad_crop(4), flip, auto_augment, cutout(16)"` (16 pixels, the usual size, is
    inferred).
    """
    return _cifar(_row("bcl", imbalance, epochs), dataset, "bcl", imbalance, epochs)


def cifar_concutmix(dataset: Dataset, imbalance: int = 100, epochs: int = 200) -> Recipe:
    """ConCutMix on CIFAR as published; semantic labels move a thousandth of a label.

    The images are those of the authors' subset (`subset_seed=10`; other recipes: 0). Their
    prototypes come, by mistake, from rows of features (`prototype_source=feature_rows_tiled`). So
    they do here with 10 classes; with 100 their code runs on several devices only, where it depends
    on their number, and here prototypes come from the classes.
    """
    semantic_start = 101 / 200 if epochs == 200 else 161 / 400
    tau = TAU[dataset, imbalance] if epochs == 200 else 0.79
    tiled = {"prototype_source": "feature_rows_tiled"} if dataset == "cifar10" else {}
    return _cifar(
        _row("concutmix", imbalance, epochs),
        dataset,
        "concutmix",
        imbalance,
        epochs,
        subset_seed=10,
        tau=tau,
        semantic_start=semantic_start,
        **tiled,
    )


def cifar_ablation(dataset: Dataset, variant: str) -> Recipe:
    """ConCutMix at imbalance 100 with one change; these settings are ours.

    "no-mixing" is BCL with ConCutMix's tau; "area-only" has no semantic labels; "semantic-P" gives
    them a weight of up to P percent (omega P / 100 over the largest log count) from epoch 101 on.
    The published setting between "area-only" and "semantic-5" has a weight of 0.1 percent.
    "ours-mixed-prior" has no semantic labels and adjusts logits for the shares that classes have
    in the mixed labels. In short runs on CIFAR-10 the published setting was 9 points worse than
    plain logit adjustment, since it corrects rare classes twice, and "ours-mixed-prior" won half
    of that back; on digits, where correcting twice helps, it gave 3 points away (see benchmarks/).
    No published figure exists for any of them, so 10 images of each class are held out to choose an
    epoch; `holdout=0` trains on the images of the published row. Other parts are switched off by
    one override each: `foreground=instance`, `tau=1`, `prototype_source=feature_rows_tiled`.
    """
    base = cifar_concutmix(dataset)
    stage = base.stages[0]
    update = {
        "name": f"{base.name}-{variant}",
        "data": base.data.model_copy(update={"holdout": None}),
        "stages": (stage.model_copy(update={"options": {**stage.options, **ABLATION[variant]}}),),
        "protocol": "honest",
    }
    return base.model_copy(update=update)


def _large(
    name: str,
    data: Data,
    method: str,
    epochs: int,
    network: str = "resnet50",
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    accumulate: int = 1,
    **options: Any,
) -> Recipe:
    published = {
        "temperature": 0.07,
        "classifier_weight": 1.0,
        "contrastive_weight": 0.35,
        "hidden_dim": 2048,
        "embedding_dim": 1024,
    }
    return Recipe(
        name=name,
        data=data,
        network=NetworkSpec(name=network, head="cosine", options={"zero_init_last": False}),
        stages=(
            Stage(
                method=method,
                options={**published, **options},
                epochs=epochs,
                batch_size=256 // accumulate,
                drop_last=False,
                accumulate=accumulate,
                optimizer=Optimizer(lr=lr, weight_decay=weight_decay),
                schedule=Schedule(kind="cosine", cosine_shift=1),
            ),
        ),
        precision="32",
    )


def _semantic(warm_up: int, epochs: int, omega: float = 200 / 255) -> dict[str, Any]:
    """ConCutMix's published options; semantic labels begin after the 0-based epoch `warm_up`."""
    return {"tau": 0.99, "semantic_start": (warm_up + 1) / epochs, "top_k": 30, "omega": omega}


def imagenet_lt_bcl(
    network: str = "resnet50", epochs: int = 90, views: tuple[str, str] = ("sim", "sim")
) -> Recipe:
    """BCL on ImageNet-LT, 452 steps an epoch.

    Both contrasted views are SimCLR's, or RandAugment makes one ("sim-rand") or both ("rand-rand").
    """
    text = str(view_preset("simclr-rand", 224))
    kind = [] if network == "resnet50" else ["resnext50"]
    return _large(
        "-".join(["imagenet-lt-bcl", *kind, *(views if "rand" in views else ())]),
        Data(source="ImageNet_LT_train.txt", views={"rand": text} if "rand" in views else {}),
        "bcl",
        epochs,
        network=network,
        views=("strong", *views),
    )


def imagenet_lt_concutmix(network: str = "resnet50", epochs: int = 100) -> Recipe:
    """ConCutMix on ImageNet-LT, 452 steps an epoch.

    The authors' logs say 15 hours for ResNet-50 and 17 for 90 epochs of ResNeXt-50, not on which
    GPUs.
    """
    warm_up = {100: 70, 90: 60, 180: 120}[epochs]
    kind = [] if network == "resnet50" else ["resnext50"]
    long = [f"{epochs}-epochs"] if epochs > 100 else []
    return _large(
        "-".join(["imagenet-lt-concutmix", *kind, *long]),
        Data(source="ImageNet_LT_train.txt"),
        "concutmix",
        epochs,
        network=network,
        **_semantic(warm_up, epochs),
    )


def _inaturalist18() -> Data:
    return Data(
        source="iNaturalist18_train.txt",
        eval_split="val",
        holdout=0,
        mean=INATURALIST_MEAN,
        std=INATURALIST_STD,
    )


def inaturalist18_bcl() -> Recipe:
    """BCL with ResNet-50 on iNaturalist 2018, 100 epochs of 1,709 steps."""
    return _large("inaturalist18-bcl", _inaturalist18(), "bcl", 100, lr=0.2, weight_decay=1e-4)


def inaturalist18_concutmix() -> Recipe:
    """ConCutMix with ResNet-50 on iNaturalist 2018, 100 epochs of 3,418 steps of 128 images.

    Two steps share one update, as published.
    """
    return _large(
        "inaturalist18-concutmix",
        _inaturalist18(),
        "concutmix",
        100,
        lr=0.2,
        weight_decay=1e-4,
        accumulate=2,
        **_semantic(80, 100, omega=1628 / 255),
    )


def places_lt_concutmix() -> Recipe:
    """ConCutMix with ResNet-152 on Places-LT, 200 epochs of 244 steps.

    The settings are those of a fork of the published code; that it trains from scratch is inferred.
    No published figure was found. Its omega, 200 / 255 for 365 classes, is 2.7 times that of the
    other rows.
    """
    return _large(
        "places-lt-concutmix",
        Data(source="Places_LT_train.txt"),
        "concutmix",
        200,
        network="resnet152",
        **_semantic(70, 200),
    )
