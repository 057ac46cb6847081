"""Runs to try instead of a diagnosed one: its recipe with one thing changed, as a command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm

from longtailed.analysis.diagnosis.evidence import Evidence
from longtailed.analysis.diagnosis.remedies import (
    AUGMENTED,
    CLASSIFIER,
    PRETRAINED,
    PRIOR,
    SAMPLING,
    UNLABELLED,
    WEIGHTS,
    is_reached,
    remedies,
    trained_stage,
)
from longtailed.analysis.diagnosis.train_command import train_command
from longtailed.methods import METHODS, chosen_epochs, method_class, method_options
from longtailed.methods.erm import LDAM, CrossEntropy, Focal
from longtailed.recipes import Recipe, Stage, compose, override
from longtailed.recipes.defaults import FINE_TUNING
from longtailed.report.run_directory import LAST
from longtailed.runs.run import as_recipe

PRETRAINED_SIDE = 96  # pixels from which a network pretrained on ImageNet has maps to look at
MANY_CLASSES = 300  # from which resnet18's 512 features are few
LATE = 0.8  # of a run: when deferred re-weighting begins
FULL_COVARIANCE = 2**28  # entries of all classes' covariances that are still cheap: 1 GiB


@dataclass(frozen=True)
class Command:
    """What a run does otherwise than the diagnosed one, and the command that trains it."""

    what: str
    line: str

    def to_json(self) -> dict[str, str]:
        """Return it as JSON-ready value."""
        return {"what": self.what, "command": self.line}


class Alternatives:
    """The alternatives to one recipe; each is None where it does not suit or is done already.

    The recipe is that of the diagnosed run, or for data alone of the run that would come first:
    cross-entropy with the usual settings, on a pretrained network where the images are large
    enough for one.
    """

    def __init__(self, evidence: Evidence) -> None:
        about, self.features = evidence.about, evidence.features.shape[1]
        self.classes, self.images = evidence.train.num_classes, len(evidence.train)
        self.side, self.directory = about["image_side"], about.get("directory")
        self.weights = about.get("weights", LAST)
        if "recipe" in about:
            self.recipe = Recipe.model_validate(about["recipe"])
        else:
            self.recipe = self._first_run(evidence)
        self.held = remedies(self.recipe)
        number = trained_stage(self.recipe)
        self.number = 0 if number is None else number
        self.stage: Stage | None = None if number is None else self.recipe.stages[number]
        self.alone = len(self.recipe.stages) == 1

    def first_run(self) -> Command | None:
        """Return the run that comes first, for data alone."""
        if self.directory is not None:
            return None
        network = self.recipe.network
        what = f"Cross-entropy on {network.name}" + ", pretrained" * network.pretrained
        return Command(what, train_command(self.recipe))

    def longer(self) -> Command | None:
        """Return the same run with twice the epochs, its schedule stretched with it."""
        if self.stage is None:
            return None
        stage, options = self.stage, self.stage.options
        changes: dict[str, Any] = {"epochs": 2 * stage.epochs}
        old = stage.schedule.milestones
        milestones = tuple(2 * one if isinstance(one, int) else one for one in old)
        starts = {key: 2 * epoch for key, epoch in chosen_epochs(stage.method, options).items()}
        what = f"{2 * stage.epochs} epochs instead of {stage.epochs}"
        if milestones != old or any(starts.values()):
            changes |= {"schedule.milestones": milestones, "options": {**options, **starts}}
            what += ", and what was set to begin at an epoch at twice that epoch"
        return self._command(what, "longer", changes)

    def logit_adjustment(self) -> Command | None:
        """Return the run with logit adjustment instead of cross-entropy, focal loss or LDAM."""
        if self.stage is None or {PRIOR, CLASSIFIER} & self.held:
            return None
        if method_class(self.stage.method) not in (CrossEntropy, Focal, LDAM):
            return None
        return self._command(
            "Logit adjustment: the class prior in the loss",
            "logit-adjustment",
            {"method": "logit-adjustment"},
        )

    def deferred_weights(self) -> Command | None:
        """Return the run with class weights in its last fifth, whatever its loss is."""
        if self.stage is None or {WEIGHTS, SAMPLING, CLASSIFIER} & self.held:
            return None
        method, options = self.stage.method, self.stage.options
        if "weighting_start" not in method_options(method) or not self._late_enough():
            return None
        drw: dict[str, Any] = {"weighting": "class-balanced", "weighting_start": LATE}
        changes: dict[str, Any] = {"options": options | drw}
        if f"{method}-drw" in METHODS:  # whose defaults these are
            kept = {key: value for key, value in options.items() if key not in drw}
            changes = {"method": f"{method}-drw", "options": kept}
        what = "Deferred re-weighting (DRW): class weights in the last fifth of the run"
        return self._command(what, "drw", changes)

    def new_classifier(self) -> Command | None:
        """Return a classifier re-trained on the run's own features, frozen."""
        suits = self.alone and self.stage is not None and self.recipe.network.head != "cosine"
        if self.directory is None or not suits or CLASSIFIER in self.held:
            return None
        changes = {"method": "crt", "network.init_from": self._own_weights()}
        return self._command("cRT: a new classifier on this run's frozen features", "crt", changes)

    def unlabelled_start(self) -> tuple[Command, ...]:
        """Return MoCo on the same images, and the run that starts from its features."""
        if self.stage is None or not self.alone or {UNLABELLED, PRETRAINED} & self.held:
            return ()
        # The queue of keys is filled batch by batch, and must come out even.
        batch = min(self.stage.batch_size, self.images)
        queue = method_options("moco")["queue_size"][1]
        changes: dict[str, Any] = {"method": "moco"}
        if queue % batch:
            changes["options"] = {"queue_size": batch * max(1, queue // batch)}
        first = self._changed("moco", changes)
        out = f"runs/{first.name}" if self.directory is None else f"{self.directory}-moco"
        return (
            Command("MoCo: the same images without their labels", train_command(first, out)),
            self._command(
                "The run again, from those features", "after-moco", {"network.init_from": out}
            ),
        )

    def pretrained(self) -> Command | None:
        """Return the run on a pretrained network of about the same cost, if the images suit one."""
        suits = self.stage is not None and self.alone and self.side >= PRETRAINED_SIDE
        if not suits or {PRETRAINED, UNLABELLED} & self.held:
            return None
        spec, stage = self.recipe.network, self.recipe.stages[0]
        changes: dict[str, Any] = {"network.pretrained": True}
        name = spec.name
        if not timm.models.is_model_pretrained(name):
            name = _pretrained_network(self.classes)
            changes |= {"network.name": name, "network.options": {}}
        what = f"{name}, pretrained on ImageNet"
        gentle = FINE_TUNING["optimizer"].lr
        if stage.optimizer.name == "sgd" and stage.optimizer.lr > gentle:
            changes["optimizer.lr"] = gentle
            what += f", with the rate of fine-tuning ({gentle:g})"
        return self._command(what, "pretrained", changes)

    def augmented_features(self) -> Command | None:
        """Return the run with RISDA instead of cross-entropy or focal loss."""
        if self.stage is None or AUGMENTED in self.held or not self._late_enough():
            return None
        if method_class(self.stage.method) not in (CrossEntropy, Focal):
            return None
        changes: dict[str, Any] = {"method": "risda"}
        if self.classes * self.features**2 > FULL_COVARIANCE:
            changes["options"] = {"covariance": "diagonal"}
        what = "RISDA: rare classes' features augmented with the spread of similar classes"
        return self._command(what, "risda", changes)

    def _first_run(self, evidence: Evidence) -> Recipe:
        """Return the run that comes first for data: on a pretrained network if one fits."""
        overrides = {f"data.{key}": value for key, value in evidence.about["options"].items()}
        network = "resnet32"
        if self.side >= PRETRAINED_SIDE:
            network = _pretrained_network(self.classes)
            overrides["network.pretrained"] = True
        elif not evidence.train.in_memory:
            overrides["data.image_size"] = max(8, self.side)  # the default would enlarge to 224
        return as_recipe(data=evidence.about["source"], network=network, overrides=overrides)

    def _own_weights(self) -> str:
        """Return where the diagnosed weights lie."""
        if self.weights == LAST:
            return str(self.directory)
        return str(Path(str(self.directory)) / f"{self.weights}.safetensors")

    def _late_enough(self) -> bool:
        """Return whether the run is long enough for what begins late in it."""
        return self.stage is not None and is_reached(LATE, self.stage.epochs)

    def _command(self, what: str, tag: str, changes: Mapping[str, Any]) -> Command:
        return Command(what, train_command(self._changed(tag, changes)))

    def _changed(self, tag: str, changes: Mapping[str, Any]) -> Recipe:
        """Return the recipe with changes to the network (whole keys) and to the trained stage."""
        prefix = f"stages.{self.number}"
        keys = {
            key if key.startswith("network.") else f"{prefix}.{key}": value
            for key, value in changes.items()
        }
        changed = override(self.recipe, keys)
        name = f"{self.recipe.name}-{tag}"
        if self.directory is None:  # the name that this run would have had from the beginning
            data, method = changed.data, changed.stages[0].method
            name = compose(data.source, method, changed.network.name, data.imbalance).name
        return changed.model_copy(update={"name": name})


def _pretrained_network(classes: int) -> str:
    """Return a pretrained network that is wide enough for a number of classes."""
    return "resnet18" if classes < MANY_CLASSES else "resnet50"
