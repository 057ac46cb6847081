"""Methods: how a network is trained. `METHODS` maps each name to what builds it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_type_hints

from torch import Tensor

from longtailed.data.positions import is_position
from longtailed.data.setting_types import checked
from longtailed.errors import unknown_name
from longtailed.methods.base import Method, Progress, Run
from longtailed.methods.bcl import BalancedContrastive
from longtailed.methods.concutmix import ConCutMix
from longtailed.methods.decoupled import ClassifierRetraining, LearnableWeightScaling
from longtailed.methods.erm import LDAM, CrossEntropy, Focal, LogitAdjustment, Mixup
from longtailed.methods.isda import ISDA
from longtailed.methods.meta_gradient import meta_covariance_gradient
from longtailed.methods.metasaug import MetaSAug
from longtailed.methods.moco import MoCo, moco_logits
from longtailed.methods.nearest_mean import NearestClassMean, NearestMean
from longtailed.methods.rare_sample_generator import RareSampleGenerator
from longtailed.methods.relations import class_relation_graph
from longtailed.methods.risda import RISDA
from longtailed.methods.rotation import Rotation, rotate_batch
from longtailed.methods.rsg import RSG, RSGLDAM, RSGFocal
from longtailed.methods.tau_norm import TauNorm, tau_normalize
from longtailed.nn import Network

__all__ = [
    "ISDA",
    "LDAM",
    "METHODS",
    "RISDA",
    "RSG",
    "RSGLDAM",
    "BalancedContrastive",
    "ClassifierRetraining",
    "ConCutMix",
    "CrossEntropy",
    "Focal",
    "LearnableWeightScaling",
    "LogitAdjustment",
    "MetaSAug",
    "Method",
    "Mixup",
    "MoCo",
    "NearestClassMean",
    "NearestMean",
    "Progress",
    "RSGFocal",
    "RareSampleGenerator",
    "Rotation",
    "Run",
    "TauNorm",
    "build_method",
    "check_options",
    "chosen_epochs",
    "class_relation_graph",
    "meta_covariance_gradient",
    "method_class",
    "method_options",
    "moco_logits",
    "never_begun",
    "rotate_batch",
    "tau_normalize",
]

_drw = {"weighting": "class-balanced", "weighting_start": 0.8}
_drs = {"sampler": "effective-number", "sampler_start": 0.8}

METHODS: dict[str, Callable[..., Method]] = {
    "ce": CrossEntropy,
    "ce-drw": partial(CrossEntropy, **_drw),  # type: ignore[arg-type]
    "ce-drs": partial(CrossEntropy, **_drs),  # type: ignore[arg-type]
    "class-balanced": partial(CrossEntropy, weighting="class-balanced"),
    "class-balanced-sampling": partial(CrossEntropy, sampler="class-balanced"),
    "focal": Focal,
    "class-balanced-focal": partial(Focal, weighting="class-balanced"),
    "ldam": LDAM,
    "ldam-drw": partial(LDAM, **_drw),  # type: ignore[arg-type]
    "ldam-drs": partial(LDAM, **_drs),  # type: ignore[arg-type]
    "balanced-softmax": LogitAdjustment,
    "logit-adjustment": LogitAdjustment,
    "isda": ISDA,
    "metasaug": MetaSAug,
    "metasaug-ldam": partial(MetaSAug, criterion="ldam"),
    "metasaug-focal": partial(MetaSAug, criterion="focal"),
    "risda": RISDA,
    "bcl": BalancedContrastive,
    "concutmix": ConCutMix,
    "mixup": Mixup,
    "mixup-drw": partial(Mixup, **_drw),  # type: ignore[arg-type]
    "rsg": RSG,
    "rsg-drw": partial(RSG, **_drw),  # type: ignore[arg-type]
    "rsg-focal": RSGFocal,
    "rsg-ldam-drw": partial(RSGLDAM, **_drw),  # type: ignore[arg-type]
    "rsg-ldam-drs": partial(RSGLDAM, **_drs),  # type: ignore[arg-type]
    "rotation": Rotation,
    "moco": MoCo,
    "crt": ClassifierRetraining,
    "lws": LearnableWeightScaling,
    "tau-norm": TauNorm,
    "ncm": NearestMean,
}


def method_class(name: str) -> type[Method]:
    """Return the class behind a method's name; an unknown name names its nearest ones."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS, listing="methods")
    entry = METHODS[name]
    return entry.func if isinstance(entry, partial) else entry  # type: ignore[return-value]


def method_options(name: str) -> dict[str, tuple[Any, Any]]:
    """Return a method's options: name -> (type, default as this method's name presets it)."""
    method_class(name)  # an unknown name is refused here
    entry = METHODS[name]
    preset = entry.keywords if isinstance(entry, partial) else {}
    options: dict[str, tuple[Any, Any]] = {}
    for cls in method_class(name).__mro__:
        constructor = cls.__dict__.get("__init__")
        if constructor is None:
            continue
        hints = get_type_hints(constructor, include_extras=True)
        parameters = inspect.signature(constructor).parameters.values()
        for parameter in parameters:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                default = preset.get(parameter.name, parameter.default)
                options.setdefault(parameter.name, (hints[parameter.name], default))
        if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break  # this class does not pass options on to its base
    return options


def check_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options converted to their types.

    Raises `LongTailedError` for an unknown option and for a value of a wrong type or out of range.
    """
    known = method_options(name)
    converted = {}
    for key, value in options.items():
        if key not in known:
            raise unknown_name(f"option of method '{name}'", key, known, listing=f"keys {name}")
        converted[key] = checked(f"option {key!r} of method '{name}'", known[key][0], value)
    return converted


def never_begun(name: str, options: dict[str, Any], epochs: int) -> list[str]:
    """Return those options, as "start=5", that name an epoch beyond a stage of `epochs`."""
    return [
        f"{key}={epoch}" for key, epoch in chosen_epochs(name, options).items() if epoch >= epochs
    ]


def chosen_epochs(name: str, options: dict[str, Any]) -> dict[str, int]:
    """Return those options that say when something begins, and say it as an epoch's number."""
    known = method_options(name)
    positions = [key for key in options if is_position(known[key][0])]
    return {key: options[key] for key in positions if isinstance(options[key], int)}


def build_method(
    name: str, network: Network, counts: Sequence[int] | Tensor, **options: Any
) -> Method:
    """Return the method called `name` around `network`, for classes of the given sizes.

    Raises `LongTailedError` for an unknown name or option, or a network that does not suit.
    """
    method_class(name)
    return METHODS[name](network, counts, **check_options(name, options))
