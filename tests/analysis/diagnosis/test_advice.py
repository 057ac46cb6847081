"""When each piece of advice appears and when not, and that its commands change what they say."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from longtailed import train
from longtailed.analysis.diagnosis import diagnose
from longtailed.analysis.diagnosis.advice import advise, rare_share
from longtailed.analysis.diagnosis.alternatives import Alternatives
from longtailed.analysis.diagnosis.evidence import Evidence
from longtailed.analysis.diagnosis.findings import Findings, LookAlike, examine
from longtailed.analysis.diagnosis.remedies import WEIGHTS, remedies
from longtailed.analysis.diagnosis.similarity import nearest_images
from longtailed.analysis.diagnosis.training_fit import TrainingFit
from longtailed.data import ImageSet
from longtailed.recipes import Recipe
from longtailed.runs.run import as_recipe

RARE = 2
COUNTS = [60, 40, 4]
LEARNT, UNLEARNT = TrainingFit(0.957, 0.005, 104, 104), TrainingFit(0.5, 0.3, 104, 104)
SCARCITY, SIMILARITY, REST = (0.4, 0.0, 0.05), (0.0, 0.4, 0.05), (0.0, 0.05, 0.4)
SETTINGS = {
    "epochs": 40, "batch_size": 24, "lr": 0.05, "seed": 3, "image_size": 32, "holdout": 3,
    "views.standard": "pad_crop(4), flip", "network.options.width": 0.5, "weight_decay": 1e-3,
    "data.subset_seed": 5,
}  # fmt: skip


def blank_images(counts: list[int]) -> ImageSet:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple(f"class {c}" for c in range(len(counts)))
    return ImageSet(torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8), labels, names)


def run_of(method: str = "ce", **overrides: Any) -> Recipe:
    """Return the recipe of a run with many settings of its own."""
    return as_recipe(data="photos", method=method, network="resnet8", imbalance=15,
                     overrides={**SETTINGS, **overrides})  # fmt: skip


def found(
    recipe: Recipe | None,
    parts: tuple[float, float, float],
    fit: TrainingFit = LEARNT,
    side: int = 32,
    low: float = 0.01,
    **about: Any,
) -> Findings:
    """Return findings in which the rare class has these parts and the others no errors.

    `recipe` is that of the run; None: data alone. `low` is the lower end of all intervals.
    """
    images, tested = blank_images(COUNTS), blank_images([50] * 3)
    generator = torch.Generator().manual_seed(0)
    corners = 3 * torch.eye(3)
    labels, truth = torch.from_numpy(images.labels), torch.from_numpy(tested.labels)
    features = corners[labels] + 0.1 * torch.randn(len(labels), 3, generator=generator)
    queries = corners[truth] + 0.1 * torch.randn(len(truth), 3, generator=generator)
    said = {"kind": "data", "source": "photos", "options": {"label_column": "kind"}}
    if recipe is not None:
        said = {"kind": "run", "directory": "runs/own", "recipe": recipe.model_dump(mode="json")}
    said |= {"image_side": side, "look_alikes_from": "pixels", "weights": "last", **about}
    near = nearest_images(features, 5)
    evidence = Evidence(images, tested, features, features, near, queries, truth, fit, said)
    findings = examine(evidence)
    rows = np.zeros((4, 3))
    rows[:, RARE] = (sum(parts), *parts)
    towards = np.zeros((3, 3))
    towards[RARE, 0] = parts[1]
    changed = dataclasses.replace(
        findings.parts, wrong=np.round(50 * rows[0]).astype(np.int64), error=rows[0],
        scarcity=rows[1], similarity=rows[2], rest=rows[3], towards=towards,
        intervals=np.full((4, 3, 2), low),
    )  # fmt: skip
    if recipe is None:
        evidence = dataclasses.replace(evidence, fit=None)
    return dataclasses.replace(findings, parts=changed, evidence=evidence)


def titles(findings: Findings) -> list[str]:
    return [one.title for one in advise(findings)]


def lines(findings: Findings) -> list[str]:
    return [command.line for one in advise(findings) for command in one.commands]


RUNS = [
    run_of(),
    run_of("focal", gamma=2.0),
    run_of("ldam"),
    run_of("balanced-softmax"),
    as_recipe("digits-ce", overrides={"lr": 0.05, "epochs": 30}),
]
CHANGES = {  # what a command changes, by what its recipe's name ends with
    "longer": [{"stages.0.epochs"}],
    "logit-adjustment": [{"stages.0.method"}, {"stages.0.method", "stages.0.options.gamma"}],
    "drw": [
        {"stages.0.method"},
        {"stages.0.options.weighting", "stages.0.options.weighting_start"},
    ],
    "crt": [
        {"stages.0.method", "network.init_from"},
        {"stages.0.method", "network.init_from", "stages.0.options.gamma"},
    ],
    "after-moco": [{"network.init_from"}],
    "moco": [
        {"stages.0.method", "stages.0.options.queue_size"},
        {"stages.0.method", "stages.0.options.queue_size", "stages.0.options.gamma"},
        {"stages.0.method"},
    ],
    "risda": [{"stages.0.method"}, {"stages.0.method", "stages.0.options.gamma"}],
    "pretrained": [
        {"network.name", "network.options.width", "network.pretrained", "stages.0.optimizer.lr"},
        {"network.name", "network.pretrained", "stages.0.optimizer.lr"},
    ],
}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_commands_keep_every_setting_and_change_only_what_is_advised(
    run, parse_command, changed_settings
):
    seen = set()
    for parts in (SCARCITY, SIMILARITY, REST):
        for line in lines(found(run, parts, UNLEARNT, side=224)):
            advised = parse_command(line).recipe
            tag = next(tag for tag in CHANGES if advised.name == f"{run.name}-{tag}")
            assert changed_settings(run, advised) in CHANGES[tag], line
            seen.add(tag)
    assert {"longer", "after-moco", "moco", "pretrained"} < seen
    assert seen & {"drw", "crt"}


def test_the_options_of_a_method_stay_where_weights_are_added(parse_command):
    for method, option, tag in (("focal", "gamma", "focal"), ("mixup", "alpha", "mixup-drw")):
        run = run_of(method, **{option: 0.5})
        commands = lines(found(run, SCARCITY))
        advised = parse_command(next(line for line in commands if "drw" in line)).recipe
        assert advised.stages[0].method == tag
        assert advised.stages[0].options[option] == 0.5


def test_the_second_command_of_pre_training_starts_from_the_first(parse_command):
    first, second = (parse_command(line) for line in lines(found(run_of(), SIMILARITY)))
    assert first.recipe.stages[0].method == "moco"
    assert first.recipe.stages[0].options["queue_size"] % 24 == 0
    assert str(first.out) == second.recipe.network.init_from == "runs/own-moco"


def test_a_new_classifier_starts_from_the_weights_that_were_diagnosed(parse_command):
    findings = found(run_of(), SCARCITY, weights="holdout-chosen")
    advised = parse_command(next(line for line in lines(findings) if "crt" in line)).recipe
    assert advised.network.init_from == "runs/own/holdout-chosen.safetensors"


# Train longer: both the training accuracy and the neighbours in the network's features decide.


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        (TrainingFit(0.5, 0.3, 104, 104), True),
        (TrainingFit(0.957, 0.005, 104, 104), False),
        (TrainingFit(0.5, 0.005, 104, 104), False),  # the features are learnt, the decision errs
        (TrainingFit(0.99, 0.3, 104, 104), False),
    ],
)
def test_training_longer_is_decided_on_the_fit_to_the_training_images(fit, expected):
    findings = found(run_of(), REST, fit)
    findings = dataclasses.replace(findings, neutral_right=0.1)  # thumbnails decide nothing
    assert ("Train longer first" in titles(findings)) is expected
    if expected:
        advice = advise(findings)[0]
        assert "50 % of them (104 images" in advice.reason
        assert "30 % are nearest to an image of another class" in advice.reason


def test_a_longer_run_keeps_the_shape_of_its_schedule(parse_command):
    run = run_of("ce-drw", weighting_start=30, milestones=[20, 0.9], warmup=5)
    command = Alternatives(found(run, REST, UNLEARNT).evidence).longer()
    longer = parse_command(command.line).recipe.stages[0]
    assert (longer.epochs, longer.options) == (80, {"weighting_start": 60})
    assert (longer.schedule.milestones, longer.schedule.warmup) == ((40, 0.9), 5)


def test_data_alone_is_never_told_to_train_longer():
    assert "Train longer first" not in titles(found(None, REST))


# Balance the decision


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("ce", {}, {"logit-adjustment", "drw", "crt"}),
        ("ldam", {}, {"logit-adjustment", "drw", "crt"}),
        ("balanced-softmax", {}, {"crt"}),
        ("logit-adjustment", {}, {"crt"}),
        ("logit-adjustment", {"tau": 0.0}, {"crt"}),
        ("ce-drw", {}, {"logit-adjustment", "crt"}),
        ("ldam-drw", {}, {"logit-adjustment", "crt"}),
        ("ldam-drs", {}, {"logit-adjustment", "crt"}),
        ("ce", {"weighting": "inverse", "weighting_start": 50}, {"logit-adjustment", "drw", "crt"}),
        ("ce-drw", {"weighting_start": 50}, {"logit-adjustment", "drw", "crt"}),  # of 40 epochs
        ("class-balanced", {}, {"logit-adjustment", "crt"}),
        ("risda", {}, {"crt"}),
        ("bcl", {}, {"crt"}),
        ("crt", {"network.init_from": "runs/earlier"}, set()),
        ("ncm", {"network.init_from": "runs/earlier", "epochs": 0}, set()),
    ],
)
def test_no_way_to_balance_is_advised_that_the_run_has_already(
    method, options, expected, parse_command
):
    findings = found(run_of(method, **options), SCARCITY)
    tags = {"logit-adjustment", "drw", "crt"}
    named = {t for t in tags for line in lines(findings) if f"resnet8-{t} " in line}
    assert named == expected
    for command in lines(findings):
        if "resnet8-drw " in command:
            assert WEIGHTS in remedies(parse_command(command).recipe)


def test_balancing_is_advised_for_scarcity_of_rare_classes_alone():
    assert titles(found(run_of(), SCARCITY))[0] == "Balance the decision"
    assert "Balance the decision" not in titles(found(run_of(), REST))
    balanced = found(run_of(), SCARCITY)
    balanced = dataclasses.replace(balanced, counts=np.full(3, 60))
    assert rare_share(balanced) is not None
    assert "Balance the decision" not in titles(balanced)
    further = advise(found(run_of("balanced-softmax"), SCARCITY))[0]
    assert further.title == "Balance the decision further"
    assert "already, by the class prior in the loss" in further.reason


# Look-alikes


def test_look_alikes_and_pre_training_are_advised_for_similarity():
    both, check = "Check the look-alikes, then pre-train without labels", "Check the look-alikes"
    assert titles(found(run_of(), SIMILARITY)) == [both]
    assert not any("look-alikes" in title for title in titles(found(run_of(), SCARCITY)))
    for done in (
        run_of(**{"network.init_from": "weights.pt"}),
        as_recipe("digits-rotation-ldam-drw-crt"),
        run_of("crt", **{"network.init_from": "runs/earlier"}),
    ):
        findings = found(done, SIMILARITY)
        assert titles(findings)[0] == check
        assert not any("moco" in line for line in lines(findings))


def test_likely_duplicates_come_first_where_there_are_some():
    findings = found(run_of(), REST)
    assert "Check the likely duplicates" not in titles(findings)
    one = examine(findings.evidence).look_alikes
    assert not one
    double = LookAlike(0, 0, 1, 70, 0.9999, "image 0")
    findings = dataclasses.replace(findings, look_alikes=[double], look_alike_images=1)
    assert titles(findings)[0] == "Check the likely duplicates"


# Better features


@pytest.mark.parametrize(
    ("run", "side", "expected"),
    [
        (run_of(), 224, "resnet18"),
        (run_of(), 32, None),  # nothing pretrained on ImageNet sees anything in 32 pixels
        (run_of(**{"network.init_from": "weights.pt"}), 224, None),
        (as_recipe(data="photos", network="resnet34", overrides={"network.pretrained": True}),
         224, None),
        (as_recipe(data="photos", network="resnet34"), 224, "resnet34"),
        (as_recipe("digits-rotation-ldam-drw-crt"), 224, None),
    ],
)  # fmt: skip
def test_a_pretrained_network_is_advised_where_it_fits(run, side, expected, parse_command):
    findings = found(run, REST, side=side)
    assert "Better features" in titles(findings)
    advised = [parse_command(s).recipe for s in lines(findings) if "-pretrained " in s]
    assert [recipe.network.name for recipe in advised] == [expected] * bool(expected)
    assert all(r.network.pretrained and r.stages[0].optimizer.lr <= 0.01 for r in advised)


def test_many_classes_get_a_wider_pretrained_network():
    findings = found(run_of(), REST, side=224)
    many = dataclasses.replace(findings.evidence, train=blank_images([1] * 400))
    assert "--network resnet50" in Alternatives(many).pretrained().line


@pytest.mark.parametrize(
    ("method", "expected"),
    [("ce", True), ("focal", True), ("isda", False), ("risda", False), ("rsg", False),
     ("ldam-drw", False), ("balanced-softmax", False)],
)  # fmt: skip
def test_augmented_features_are_advised_in_place_of_a_plain_loss(method, expected):
    assert any("--method risda" in s for s in lines(found(run_of(method), REST))) is expected
    assert not any("risda" in s for s in lines(found(run_of(method, epochs=4), REST)))


def test_covariances_of_many_features_are_diagonal(parse_command):
    findings = found(run_of(), REST)
    wide = dataclasses.replace(findings.evidence, features=torch.zeros(1, 2**14))
    recipe = parse_command(Alternatives(wide).augmented_features().line).recipe
    assert recipe.stages[0].options == {"covariance": "diagonal"}


# Nothing, and data alone


def test_nothing_is_advised_where_chance_could_have_made_the_parts():
    assert titles(found(run_of(), SCARCITY, low=-0.01)) == ["No single remedy"]
    assert "No single remedy" not in titles(found(run_of(), SCARCITY))
    few = found(run_of(), (0.02, 0.0, 0.0))
    assert titles(few) == ["Nothing to divide"]
    assert "Nothing to divide" not in titles(found(run_of(), SCARCITY))


@pytest.mark.parametrize(("side", "network"), [(224, "resnet18"), (32, "resnet32")])
def test_commands_for_data_alone_name_the_same_data(side, network, parse_command):
    found_lines = [
        line for parts in (SCARCITY, SIMILARITY, REST)
        for line in lines(found(None, parts, side=side))
    ]  # fmt: skip
    assert len(found_lines) == (4 if side == 224 else 6)
    for line in found_lines:
        recipe = parse_command(line).recipe
        assert (recipe.data.source, recipe.data.label_column) == ("photos", "kind")
        assert recipe.network.name == network
        assert recipe.network.pretrained is (side == 224)
        assert "name=" not in line


# Verdicts


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((0.3, -0.18, 0.88), "the rest, then scarcity"),
        ((0.05, 0.0, 0.9), "the rest"),
        ((0.4, 0.0, 0.05), "scarcity"),
        ((0.2, 0.5, 0.1), "similarity to class 0, then scarcity"),
    ],
)
def test_the_verdict_names_the_largest_part_first(parts, expected):
    assert found(run_of(), parts).verdict(RARE) == expected


def test_no_part_is_named_where_the_largest_could_be_chance():
    findings = found(run_of(), (0.2, 0.0, 0.3))
    intervals = findings.parts.intervals.copy()
    intervals[3, RARE] = -0.01, 0.5
    parts = dataclasses.replace(findings.parts, intervals=intervals)
    assert dataclasses.replace(findings, parts=parts).verdict(RARE).startswith("unclear")


def test_a_run_that_has_learnt_nothing_is_told_to_train_longer(tmp_path, parse_command):
    overrides = {"epochs": 1, "batch_size": 50, "lr": 1e-6, "network.options.width": 0.25}
    overrides |= {"data.counts": [12] * 9 + [4], "data.holdout": 0}
    run = train(data="digits", method="ce", network="resnet8", overrides=overrides,
                out=tmp_path / "run", device="cpu", progress=False, report=False)  # fmt: skip
    result = diagnose(tmp_path / "run", out=tmp_path / "out", device="cpu")
    first = result.advice[0]
    assert first.title == "Train longer first"
    assert result.findings.evidence.fit.images == 112
    longer = parse_command(first.commands[0].line).recipe
    assert longer.stages[0].epochs == 2
    assert longer.data == run.recipe.data
    assert longer.network == run.recipe.network
