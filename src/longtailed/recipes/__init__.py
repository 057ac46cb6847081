"""Recipes: what a run is. `RECIPES` maps each name to the function that returns it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from longtailed.data.settings import Data
from longtailed.errors import unknown_name
from longtailed.nn.settings import NetworkSpec
from longtailed.recipes import cifar, contrastive, decoupled, demo, large, rsg, semantic, ssp
from longtailed.recipes.defaults import compose
from longtailed.recipes.override import override
from longtailed.recipes.recipe import Recipe, Stage, load_recipe

__all__ = [
    "RECIPES",
    "Data",
    "NetworkSpec",
    "Recipe",
    "Stage",
    "compose",
    "load_recipe",
    "named_recipe",
    "override",
    "recipe_note",
]

_CIFAR = {
    "ce": cifar.ce,
    "focal": cifar.focal,
    "class-balanced": cifar.class_balanced,
    "class-balanced-focal": cifar.class_balanced_focal,
    "class-balanced-sampling": cifar.class_balanced_sampling,
    "ldam": cifar.ldam,
    "ldam-drw": cifar.ldam_drw,
    "ce-drw": cifar.ce_drw,
    "balanced-softmax": cifar.balanced_softmax,
    "mixup-drw": cifar.mixup_drw,
}

_SEMANTIC: dict[str, Callable[..., Recipe]] = {
    "metasaug": semantic.metasaug,
    "metasaug-ldam": partial(semantic.metasaug, criterion="ldam"),
    "risda": semantic.risda,
}
_RSG = {"rsg": rsg.ce, "rsg-focal": rsg.focal, "rsg-ldam-drw": rsg.ldam_drw}
_CONTRASTIVE: dict[str, Callable[..., Recipe]] = {
    "bcl": contrastive.cifar_bcl,
    "50-bcl": partial(contrastive.cifar_bcl, imbalance=50),
    "10-bcl": partial(contrastive.cifar_bcl, imbalance=10),
    "concutmix": contrastive.cifar_concutmix,
    "50-concutmix": partial(contrastive.cifar_concutmix, imbalance=50),
    "10-concutmix": partial(contrastive.cifar_concutmix, imbalance=10),
    **{
        f"concutmix-{variant}": partial(contrastive.cifar_ablation, variant=variant)
        for variant in contrastive.ABLATION
    },
}
_bcl_resnext50 = partial(contrastive.imagenet_lt_bcl, network="resnext50_32x4d")
_SSP: dict[str, Callable[..., Recipe]] = {
    "rotation": ssp.rotation,
    "rotation-ce": ssp.rotation_ce,
    "rotation-resampling": ssp.rotation_resampling,
    "rotation-class-balanced": ssp.rotation_class_balanced,
    "rotation-ce-drw": ssp.rotation_ce_drw,
    "rotation-ldam": ssp.rotation_ldam,
    "rotation-ldam-drw": ssp.rotation_ldam_drw,
    "rotation-ldam-drw-crt": ssp.rotation_ldam_drw_crt,
    "moco": ssp.moco,
    "moco-ce": ssp.moco_ce,
    "moco-ldam-drw-crt": ssp.moco_ldam_drw_crt,
}
_DECOUPLED: dict[str, Callable[[str], Recipe]] = {
    "imagenet-lt": decoupled.imagenet_lt,
    "places-lt": decoupled.places_lt,
    "inaturalist18": decoupled.inaturalist18,
}

RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits-ce": partial(demo.digits, "ce"),
    "digits-ldam-drw": partial(demo.digits, "ldam-drw"),
    "digits-isda": partial(demo.digits, "isda"),
    "digits-metasaug": partial(demo.digits, "metasaug"),
    "digits-risda": partial(demo.digits, "risda"),
    **{f"cifar10-lt-{name}": partial(make, "cifar10") for name, make in _CIFAR.items()},
    **{f"cifar100-lt-{name}": partial(make, "cifar100") for name, make in _CIFAR.items()},
    **{
        f"{dataset}-lt-{name if ratio == 100 else f'{ratio}-{name}'}": partial(make, dataset, ratio)
        for dataset in semantic.DATASETS
        for name, make in _SEMANTIC.items()
        for ratio in semantic.IMBALANCES
    },
    "cifar10-lt-isda": partial(semantic.isda, "cifar10"),
    "cifar100-lt-isda": partial(semantic.isda, "cifar100"),
    "imagenet-lt-metasaug": semantic.imagenet_lt_metasaug,
    "imagenet-lt-risda": semantic.imagenet_lt_risda,
    "inaturalist17-metasaug": partial(semantic.inaturalist_metasaug, 17),
    "inaturalist18-metasaug": partial(semantic.inaturalist_metasaug, 18),
    "inaturalist18-risda": semantic.inaturalist18_risda,
    **{f"cifar10-lt-{name}": partial(make, "cifar10") for name, make in _RSG.items()},
    **{f"cifar100-lt-{name}": partial(make, "cifar100") for name, make in _RSG.items()},
    **{f"cifar10-step-{name}": partial(make, "cifar10", "step") for name, make in _RSG.items()},
    **{f"cifar100-step-{name}": partial(make, "cifar100", "step") for name, make in _RSG.items()},
    **{f"cifar10-lt-{name}": partial(make, "cifar10") for name, make in _CONTRASTIVE.items()},
    **{f"cifar100-lt-{name}": partial(make, "cifar100") for name, make in _CONTRASTIVE.items()},
    "cifar100-lt-bcl-400-epochs": partial(contrastive.cifar_bcl, "cifar100", epochs=400),
    "cifar100-lt-concutmix-400-epochs": partial(
        contrastive.cifar_concutmix, "cifar100", epochs=400
    ),
    "imagenet-lt-ce": large.imagenet_lt,
    "imagenet-lt-ce-class-balanced": partial(large.imagenet_lt, sampler="class-aware"),
    "imagenet-lt-ce-square-root": partial(large.imagenet_lt, sampler="square-root"),
    "imagenet-lt-ce-progressive": partial(large.imagenet_lt, sampler="progressive"),
    "imagenet-lt-ldam-drs": large.imagenet_lt_ldam_drs,
    "places-lt-ce": large.places_lt,
    "inaturalist18-ce": large.inaturalist18,
    "imagenet-lt-rsg-ldam-drs": rsg.imagenet_lt,
    "places-lt-rsg-ldam-drs": rsg.places_lt,
    "inaturalist18-rsg-ldam-drs": rsg.inaturalist18,
    "imagenet-lt-bcl": contrastive.imagenet_lt_bcl,
    "imagenet-lt-bcl-resnext50": _bcl_resnext50,
    "imagenet-lt-bcl-resnext50-sim-rand": partial(_bcl_resnext50, views=("sim", "rand")),
    "imagenet-lt-bcl-resnext50-rand-rand": partial(_bcl_resnext50, views=("rand", "rand")),
    "imagenet-lt-concutmix": contrastive.imagenet_lt_concutmix,
    "imagenet-lt-concutmix-resnext50": partial(
        contrastive.imagenet_lt_concutmix, network="resnext50_32x4d", epochs=90
    ),
    "imagenet-lt-concutmix-resnext50-180-epochs": partial(
        contrastive.imagenet_lt_concutmix, network="resnext50_32x4d", epochs=180
    ),
    "inaturalist18-bcl": contrastive.inaturalist18_bcl,
    "inaturalist18-concutmix": contrastive.inaturalist18_concutmix,
    "places-lt-concutmix": contrastive.places_lt_concutmix,
    "digits-rotation-ldam-drw-crt": demo.digits_chain,
    **{
        f"{dataset}-lt{'' if ratio == 100 else f'-{ratio}'}-{name}": partial(make, dataset, ratio)
        for dataset in ssp.DATASETS
        for name, make in _SSP.items()
        for ratio in ssp.IMBALANCES
    },
    **{
        f"{dataset}-moco-{variant}": partial(make, variant)
        for dataset, make in (
            ("imagenet-lt", ssp.imagenet_lt),
            ("inaturalist18", ssp.inaturalist18),
        )
        for variant in ("ce", "class-balanced-sampling", "crt")
    },
    **{
        f"{dataset}-lt-{method}": partial(decoupled.cifar_lt, dataset, method)
        for dataset in ssp.DATASETS
        for method in decoupled.CLASSIFIERS
    },
    **{
        f"{dataset}-lt-crt-class-balanced": partial(decoupled.cifar_reweighted, dataset)
        for dataset in ssp.DATASETS
    },
    **{
        f"{dataset}-{method}": partial(make, method)
        for dataset, make in _DECOUPLED.items()
        for method in decoupled.CLASSIFIERS
    },
}


def named_recipe(name: str) -> Recipe:
    """Return the recipe called `name`; an unknown name names its nearest ones."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES, listing="recipes")
    return RECIPES[name]()


def recipe_note(name: str) -> str:
    """Return what a recipe's documentation says: what it is, its cost, how it was published."""
    entry = RECIPES[name]
    return inspect.getdoc(entry.func if isinstance(entry, partial) else entry) or ""
