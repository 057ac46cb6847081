"""What to try first, from the measured parts, and what the numbers cannot show."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np

from longtailed.diagnosis.attribution import LEVEL, NEIGHBOURS
from longtailed.diagnosis.findings import NOTICEABLE, Findings
from longtailed.methods import method_class
from longtailed.recipes.recipe import Data

BALANCED = ("ldam-drw", "logit-adjustment", "balanced-softmax", "bcl", "concutmix", "crt", "lws")

SAME_IMAGES = (
    "root",
    "val_list",
    "test_list",
    "label_column",
    "image_column",
    "class_names",
    "profile",
    "max_count",
    "counts",
    "similar",
    "subset_seed",
    "selection",
    "holdout",
    "eval_split",
    "image_size",
    "on_bad_image",
)  # settings of a recipe's data that decide which images there are


@dataclass(frozen=True)
class Advice:
    """One thing to try: what, why (with the measured figure), and the commands."""

    title: str
    reason: str
    commands: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready value."""
        return {"title": self.title, "reason": self.reason, "commands": list(self.commands)}


@dataclass(frozen=True)
class Share:
    """Mean error of some classes and its parts, shares of test images, a class counting once.

    `rare` says whether these are classes with few images, and not all that can be divided.
    """

    classes: tuple[int, ...]
    error: float
    scarcity: float
    similarity: float
    rest: float
    rare: bool


def rare_share(findings: Findings) -> Share | None:
    """Return the mean parts over the classes with few images whose error can be divided.

    Over all classes that can be divided, where no rare one can; None if there is none.
    """
    rare = [c for c in findings.rare() if findings.divided(c)]
    chosen = rare or [c for c in findings.by_error() if findings.divided(c)]
    if not chosen:
        return None
    parts = findings.parts
    rows = (parts.error, parts.scarcity, parts.similarity, parts.rest)
    error, scarcity, similarity, rest = (float(np.mean(row[chosen])) for row in rows)
    return Share(tuple(chosen), error, scarcity, similarity, rest, rare=bool(rare))


def advise(findings: Findings) -> list[Advice]:
    """Return what to try, the largest part of the rare classes' error first."""
    found: list[tuple[float, Advice]] = []
    doubles = sum(one.duplicate for one in findings.look_alikes)
    if doubles:
        found.append((2.0, _check_duplicates(doubles)))
    if findings.blurred and not findings.evidence.estimated:
        found.append((1.5, _train_first(findings)))
    share = rare_share(findings)
    if share is not None and share.error > 0:
        parts = {"scarcity": share.scarcity, "similarity": share.similarity, "rest": share.rest}
        builders = {"scarcity": _for_scarcity, "similarity": _for_similarity, "rest": _for_rest}
        for name, value in parts.items():
            if value >= NOTICEABLE * share.error:
                found.append((value / share.error, builders[name](findings, share)))
    found.sort(key=lambda entry: -entry[0])
    return [advice for _, advice in found] or [_nothing(share)]


def _nothing(share: Share | None) -> Advice:
    if share is None:
        return Advice(
            "Nothing to divide",
            "No class has enough wrong images; there is little to gain, or too little to test on.",
        )
    return Advice(
        "No single remedy",
        "None of the parts is large enough to recommend anything; add test images first.",
    )


def _train_first(findings: Findings) -> Advice:
    number = f"{findings.look_alike_images:,} of {len(findings.evidence.train):,}"
    return Advice(
        "Train longer first",
        f"{number} training images look like another class in these features: the network hardly "
        "knows the classes apart yet, and what follows says little until it does.",
    )


def _check_duplicates(number: int) -> Advice:
    return Advice(
        "Check the likely duplicates",
        f"{plural(number, 'training image is', 'training images are')} almost the same as an image "
        "of another class; if a pair shows the same thing, one of its labels is wrong. They head "
        "the list of look-alikes.",
    )


def plural(number: int, one: str, several: str) -> str:
    """Return the number with the noun that suits it."""
    return f"{number:,} {one if number == 1 else several}"


def _points(part: float, share: Share) -> str:
    return (
        f"{100 * part:.0f} of {100 * share.error:.0f} points of error on "
        f"{plural(len(share.classes), 'class', 'classes')}"
    )


def _for_scarcity(findings: Findings, share: Share) -> Advice:
    about = findings.evidence.about
    used = set(about["method"])
    methods = [name for name in ("logit-adjustment", "ldam-drw") if name not in used]
    commands = [f"longtailed train {_given(findings)} --method {name}" for name in methods]
    if about["kind"] == "run" and "crt" not in used:
        given = _given(findings, start=about["directory"], epochs=10)
        commands.append(f"longtailed train {given} --method crt")
    reason = (
        f"Scarcity of the decision: equal weights for all classes, on the same features, recover "
        f"{_points(share.scarcity, share)}."
    )
    if used & set(BALANCED):
        reason += " This run was balanced already; see whether its schedule reached that phase."
    return Advice("Balance the decision", reason, tuple(commands))


def _for_similarity(findings: Findings, share: Share) -> Advice:
    used = findings.evidence.about["method"]
    method = used[-1] if used and not method_class(used[-1]).takes_over_head else "ldam-drw"
    pairs = []
    for label in share.classes:
        other = findings.similar_class(label)
        if other is not None and findings.parts.towards[label, other] > 0:
            pairs.append(f"{findings.names[label]} / {findings.names[other]}")
    return Advice(
        "Check the look-alikes, then pre-train without labels",
        f"Similarity: {_points(share.similarity, share)} lie among training images of another "
        f"class that look like their own ({', '.join(pairs[:5])}). Look at the labels of the "
        "images listed below; if they are right, features learnt without labels first separate "
        "such classes better (rotation prediction where up and down mean something, else MoCo).",
        (
            f"longtailed train {_given(findings)} --method moco --out pretrained",
            f"longtailed train {_given(findings, start='pretrained')} --method {method}",
        ),
    )


def _for_rest(findings: Findings, share: Share) -> Advice:
    about, commands = findings.evidence.about, []
    if "recipe" not in about or not about["recipe"]["network"]["pretrained"]:
        words = "--network resnet50 network.pretrained=true --method ldam-drw"
        commands.append(f"longtailed train {_images(findings)} {words}")
    if "risda" not in about["method"]:
        commands.append(f"longtailed train {_given(findings)} --method risda")
    return Advice(
        "Better features",
        f"The rest, {_points(share.rest, share)}, is reached neither by equal weights nor by "
        "look-alikes: the features do not separate these images, because too few images have "
        "shaped them or because they are hard. More images of these classes, a pretrained "
        "network, or augmentation of the rare classes' features.",
        tuple(commands),
    )


def _source(findings: Findings) -> str:
    about = findings.evidence.about
    recipe = about.get("recipe")
    return str(recipe["data"]["source"] if recipe else about["source"])


def _images(findings: Findings) -> str:
    """Return the options of `longtailed train` that name the same images."""
    about = findings.evidence.about
    data = about["recipe"]["data"] if "recipe" in about else about["options"]
    usual = Data().model_dump(mode="json")
    words = ["--data", _source(findings)]
    if data.get("imbalance") is not None:
        words += ["--imbalance", f"{data['imbalance']:g}"]
    for key in SAME_IMAGES:
        value = data.get(key, usual[key])
        pairs = {key: (value, usual[key])}
        if isinstance(value, dict):
            pairs = {f"{key}.{name}": (one, usual[key][name]) for name, one in value.items()}
        words += [_setting(f"data.{k}", v) for k, (v, old) in pairs.items() if v != old]
    return shlex.join(words)


def _given(findings: Findings, start: str | None = None, epochs: int = 0) -> str:
    """Return the options that name the images, the network and its start, and the epochs.

    `start` and `epochs` replace the run's own.
    """
    recipe = findings.evidence.about.get("recipe")
    if recipe is None:
        words = ["--network", "resnet18"]
    else:
        spec = recipe["network"]
        words = ["--network", spec["name"]]
        words += [_setting(f"network.options.{k}", v) for k, v in spec["options"].items()]
        words += ["network.pretrained=true"] * spec["pretrained"]
        words.append(f"epochs={epochs or recipe['stages'][-1]['epochs'] or 30}")
        start = start or spec["init_from"]
    if start is not None:
        words.append(f"network.init_from={start}")
    return f"{_images(findings)} {shlex.join(words)}"


def _setting(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else repr(value).replace(" ", "")
    return f"{key}={text}"


def _sought_in(findings: Findings) -> str:
    neutral = findings.evidence.about["look_alikes_from"]
    if findings.evidence.estimated:
        return f"the features of {neutral}; those that these do not show are missed"
    return (
        f"the learnt features and in {neutral}. The features were learnt from the same labels, so "
        "what the network has learnt by heart looks like its label; look-alikes that neither "
        "description shows are missed"
    )


def limits(findings: Findings) -> list[str]:
    """Return, in plain words, what the numbers can and cannot show."""
    evidence, parts = findings.evidence, findings.parts
    tested = parts.images[parts.images > 0]
    learnt, met = findings.memorised
    texts = [
        "The parts are associations in one trained network. They say where errors lie, not what "
        "would happen if images were added or removed; only training again can show that.",
        "Scarcity here is that of the decision: what equal weights for all classes recover on the "
        "same features. What few images did to the features themselves is in the rest. Equal "
        "weights also recover errors that go with look-alikes nobody noticed.",
        f"Similarity counts wrong images whose {NEIGHBOURS} nearest training images of the class "
        "they were taken for look like their own class, beyond chance. Look-alikes are sought in "
        f"{_sought_in(findings)}, and similarity is then too small.",
        f"Intervals ({100 * LEVEL:.0f} %) come from resampling the test images, {tested.min():,} "
        f"to {tested.max():,} a class; they say nothing about other training runs, which vary "
        "more. A class with fewer than five errors is not divided.",
    ]
    if evidence.estimated:
        texts[0] = (
            "No classifier was trained: errors are estimates from the nearest other images, each "
            "image left out in turn. A trained classifier errs elsewhere, and usually less. "
            "The parts are associations; only training can show what causes an error."
        )
    if not evidence.estimated and learnt > met + 0.1:
        texts.append(
            f"In the learnt features {100 * learnt:.0f} % of the training images are nearest to "
            f"their own class, but only {100 * met:.0f} % of the test images: the network has "
            "learnt its training labels by heart, and the learnt features hide look-alikes."
        )
    if findings.blurred:
        texts.append(
            f"{findings.look_alike_images:,} of {len(evidence.train):,} training images look like "
            "another class: these features hardly know the classes apart, so similarity says "
            "little about single images here. Diagnose again with a better trained network."
        )
    return texts
