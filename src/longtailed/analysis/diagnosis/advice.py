"""What to try first, from the measured parts and from what the run does already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from longtailed.analysis.diagnosis.alternatives import Alternatives, Command
from longtailed.analysis.diagnosis.findings import NOTICEABLE, Findings
from longtailed.analysis.diagnosis.remedies import BALANCE
from longtailed.analysis.diagnosis.training_fit import TrainingFit

KEPT = "Every command keeps all settings of the diagnosed run but for what stands above it."
MOST_NAMED = 5  # classes, or pairs of them, that a sentence names


@dataclass(frozen=True)
class Advice:
    """One thing to try: what, why (with the measured figure), and the commands."""

    title: str
    reason: str
    commands: tuple[Command, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready value."""
        commands = [command.to_json() for command in self.commands]
        return {"title": self.title, "reason": self.reason, "commands": commands}


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
    """Return what to try: what is wrong with the data, with the length, then the largest part."""
    found, runs = [], Alternatives(findings.evidence)
    doubles = sum(one.duplicate for one in findings.look_alikes)
    if doubles:
        found.append(_check_duplicates(doubles))
    fit = findings.evidence.fit
    if fit is not None and fit.too_short:
        found.append(_train_longer(fit, runs))
    share = rare_share(findings)
    builders = {"scarcity": _for_scarcity, "similarity": _for_similarity, "rest": _for_rest}
    if share is not None:
        parts = [builders[name](findings, share, runs) for name in _named_parts(findings, share)]
        found += [one for one in parts if one is not None]
    return found or [_nothing(share)]


def _named_parts(findings: Findings, share: Share) -> list[str]:
    """Return the parts that are a fifth of the error or more and that a class's verdict names."""
    named = {part for label in share.classes for part in findings.large_parts(label)}
    sizes = {name: getattr(share, name) for name in ("scarcity", "similarity", "rest")}
    large = [name for name in sizes if sizes[name] >= NOTICEABLE * share.error and name in named]
    return sorted(large, key=lambda name: -sizes[name])


def _nothing(share: Share | None) -> Advice:
    if share is None:
        return Advice(
            "Nothing to divide",
            "No class has enough wrong images; there is little to gain, or too little to test on.",
        )
    return Advice(
        "No single remedy",
        "No part of the error is large and certain enough to recommend anything; more test images "
        "would tell more.",
    )


def _train_longer(fit: TrainingFit, runs: Alternatives) -> Advice:
    return Advice(
        "Train longer first",
        f"The network has not learnt its own training images: it is right on "
        f"{100 * fit.accuracy:.0f} % of them ({fit.images:,} images, mean over classes), and in "
        f"its features {100 * fit.neighbour_error:.0f} % are nearest to an image of another class "
        f"({fit.sampled:,} images looked at). What follows says little until it has.",
        _given(runs.longer()),
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


def named_classes(findings: Findings, share: Share) -> str:
    """Return what to call the classes of a share, the first of them by name."""
    names = ", ".join(findings.names[c] for c in share.classes[:MOST_NAMED])
    more = ", …" if len(share.classes) > MOST_NAMED else ""
    kind = "rare " if share.rare else ""
    return f"the {kind}{'class' if len(share.classes) == 1 else 'classes'} {names}{more}"


def _points(findings: Findings, share: Share, part: str) -> str:
    """Return how large a part is of what error of which classes, as a clause."""
    which, value, error = named_classes(findings, share), 100 * getattr(share, part), share.error
    if value > 100 * error:  # another part is below 0, so that the sum is the error again
        return f"{value:.0f} points on {which}, whose error is {100 * error:.0f} %"
    return f"{value:.0f} of the {100 * error:.0f} points of error on {which}"


def _given(*commands: Command | None) -> tuple[Command, ...]:
    return tuple(command for command in commands if command is not None)


def _for_scarcity(findings: Findings, share: Share, runs: Alternatives) -> Advice | None:
    """Return how to balance the decision; None if no class is rare, so that nothing is to balance.

    What the run does already is named and not advised again.
    """
    if not share.rare:
        return None
    reason = (
        f"Scarcity is {_points(findings, share, 'scarcity')}: a decision with equal weights for "
        "all classes would get these images right, on the same features."
    )
    done = [name for name in BALANCE if name in runs.held]
    commands = _given(runs.logit_adjustment(), runs.deferred_weights(), runs.new_classifier())
    if done:
        reason += f" The run balances already, by {' and '.join(done)}, but not enough."
    return Advice("Balance the decision" + " further" * bool(done), reason, commands)


def _for_similarity(findings: Findings, share: Share, runs: Alternatives) -> Advice:
    pairs = []
    for label in share.classes:
        other = findings.similar_class(label)
        if other is not None and findings.parts.towards[label, other] > 0:
            pairs.append(f"{findings.names[label]} / {findings.names[other]}")
    title, reason = (
        "Check the look-alikes",
        f"Similarity is {_points(findings, share, 'similarity')}: these images lie among training "
        f"images of another class that look like their own ({', '.join(pairs[:MOST_NAMED])}). Look "
        "at the labels of the images listed in the page.",
    )
    commands = runs.unlabelled_start()
    if commands:
        title += ", then pre-train without labels"
        reason += (
            " If they are right, features learnt without labels first may separate such classes "
            "better."
        )
    return Advice(title, reason, commands)


def _for_rest(findings: Findings, share: Share, runs: Alternatives) -> Advice:
    commands = _given(
        runs.first_run(),
        runs.pretrained(),
        runs.augmented_features() if share.rare else None,
    )
    return Advice(
        "Better features",
        f"The rest is {_points(findings, share, 'rest')}. Neither equal weights nor look-alikes "
        "explain it: the features do not separate these images, because too few images have shaped "
        "the features or because the images are hard. What remains are more images of these classes"
        f"{', or features from elsewhere' * bool(commands)}.",
        commands,
    )
