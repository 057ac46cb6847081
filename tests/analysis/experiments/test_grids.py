"""Grids: exactly which runs an experiment is made of."""

from __future__ import annotations

import pytest
from PIL import Image

from longtailed.analysis.experiments import EXPERIMENTS
from longtailed.analysis.experiments.published import published_table
from longtailed.analysis.experiments.setup import Setup, make_setup, seeded
from longtailed.analysis.experiments.starts import published_name
from longtailed.errors import LongTailedError
from longtailed.recipes import NetworkSpec, Recipe, Stage, override

CIFAR = (5000,) * 10
DIGITS = (125, 127, 124, 128, 127, 127, 127, 125, 122, 126)
LONG_TAIL = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def grid(name, size="paper", available=CIFAR, coarse=False, changes=(), in_memory=True, **stage):
    base = Recipe(
        name=name,
        network=NetworkSpec(name="resnet32" if size == "paper" else "resnet8"),
        stages=(Stage(**{"epochs": 200, "batch_size": 256, **stage}),),
    )
    setup = Setup(size, override(base, changes, complete=False), available, 600, coarse, in_memory)
    return EXPERIMENTS[name].points(setup)


def counts(points):
    return [list(point.recipe.data.counts) for point in points]


def test_toy_case_1():
    assert counts(grid("toy-case-1")) == [[100 * i] * 9 + [50] for i in range(1, 51)]
    coarse = counts(grid("toy-case-1", coarse=True))
    assert [row[0] for row in coarse] == published_table("toy-case-1", 10)["head_images"]
    small = counts(grid("toy-case-1", "small", DIGITS))
    assert small == [[n] * 9 + [5] for n in (10, 20, 40, 80, 120)]


def test_toy_case_2():
    assert counts(grid("toy-case-2")) == [[5000] * 9 + [5000 - 100 * i] for i in range(50)]
    coarse = counts(grid("toy-case-2", coarse=True))
    assert [row[-1] for row in coarse] == published_table("toy-case-2", 10)["tail_images"]
    small = counts(grid("toy-case-2", "small", DIGITS))
    assert small == [[120] * 9 + [n] for n in (120, 60, 30, 15, 5, 2)]


@pytest.mark.parametrize("name", ["toy-case-1", "toy-case-2", "similar-samples"])
@pytest.mark.parametrize("images", [24, 30, 47, 60])
def test_few_images_make_no_place_twice(name, images):
    points = grid(name, "small", (images,) * 10)
    assert len({point.name for point in points}) == len(points)
    assert all(1 <= count <= images for row in counts(points) for count in row)


def test_similar_samples():
    points = grid("similar-samples")
    assert all(row == LONG_TAIL for row in counts(points))
    found = {
        (p.recipe.data.similar.fraction, round(1 - p.recipe.data.similar.head_weight, 6))
        for p in points
        if p.settings["arm"] in ("untouched", "similar")
    }
    shares = {(k / 10, 0.8) for k in range(1, 6)}
    assert found == {(0.0, 0.0)} | shares | {(0.2, k / 10) for k in range(1, 11)}
    assert len(points) == len(found) + 3
    assert len(grid("similar-samples", coarse=True)) == 1 + 5 + 4 + 3
    controls = {p.settings["arm"]: p.recipe.data.similar for p in points[-3:]}
    assert controls["noise"].tail_class == "noise"
    assert controls["other head"].tail_class == 1
    assert (controls["appended"].mode, controls["appended"].tail_class) == ("append", None)
    assert {similar.fraction for similar in controls.values()} == {0.5}
    assert {similar.head_weight for similar in controls.values()} == {0.2}
    small = grid("similar-samples", "small", DIGITS)
    assert counts(small)[0] == [120, 86, 61, 44, 31, 22, 16, 11, 8, 6]
    assert len({point.recipe.identity for point in small}) == len(small) == 10


def test_two_classes_have_no_other_head():
    arms = [p.settings["arm"] for p in grid("similar-samples", "small", (60, 60))]
    assert arms[-2:] == ["noise", "appended"]


@pytest.mark.parametrize(
    ("name", "size", "coarse", "number"),
    [
        ("pre-training", "paper", False, 4 * 4 * 2),
        ("pre-training", "paper", True, 4 * 2),
        ("pre-training", "small", False, 4 * 2),
        ("architectures", "paper", False, 4 * 4 * 4 * 2),
        ("architectures", "paper", True, 2 * 2),
        ("architectures", "small", False, 2 * 2),
    ],
)
def test_starts_come_in_pairs(name, size, coarse, number):
    points = grid(name, size, CIFAR, coarse)
    assert len({point.name for point in points}) == len(points) == number
    for plain, started in zip(points[::2], points[1::2], strict=True):
        assert plain.recipe.data.counts == started.recipe.data.counts
        rotation, *rest = started.recipe.stages
        assert rotation.method == "rotation"
        assert tuple(rest) == plain.recipe.stages
    if size == "paper":
        assert counts(points)[0] == LONG_TAIL


def test_table_11_has_a_place_for_every_point():
    for name in ("pre-training", "architectures"):
        table = published_table(name, 10)
        points = [p for p in grid(name) if p.settings["network"] == "resnet32" or name[0] == "a"]
        assert points
        assert all(published_name(table, point) in table["rank1"] for point in points)
    assert published_table("pre-training", 10)["rank1"]["CE+SSP+DRW"] == [77.5, 81.2, 86.3, 88.2]
    depths = published_table("architectures", 100)["rank1"]
    assert depths["LDAM+SSP, resnet110"] == [42.5, 47.5, 54.7, 60.3]


def test_every_published_row_is_as_long_as_its_columns():
    for name in EXPERIMENTS:
        assert published_table(name, 10)["notes"] is not None
        assert published_table(name, 47) is None
    for name in ("pre-training", "architectures"):
        for classes in (10, 100):
            table = published_table(name, classes)
            assert {len(row) for row in table["rank1"].values()} == {len(table["imbalance"])}
    for name, x in (("toy-case-1", "head_images"), ("toy-case-2", "tail_images")):
        table = published_table(name, 10)
        assert {len(row) for row in table["per_class"]} == {len(table[x])} == {10}
        assert len(table["per_class"]) == len(table["rank1"]) == len(table["rank5"]) == 10


def test_small_runs_make_as_many_updates_whatever_their_size():
    points = grid("toy-case-1", "small", DIGITS, epochs=0, batch_size=32)
    for point in points:
        stage, images = point.recipe.stages[0], sum(point.recipe.data.counts)
        updates = stage.epochs * (images // 32)
        assert 600 <= updates < 600 + images // 32
    assert {p.recipe.stages[0].epochs for p in grid("toy-case-1", "small", epochs=3)} == {3}


def test_seeds_choose_images_and_training():
    recipe = grid("toy-case-1")[0].recipe
    assert (seeded(recipe, 3).seed, seeded(recipe, 3).data.subset_seed) == (3, 3)
    assert seeded(recipe, 0) == recipe


@pytest.mark.parametrize("name", ["toy-case-1", "toy-case-2", "similar-samples"])
def test_too_little_data_is_one_sentence(name):
    with pytest.raises(LongTailedError, match=r"paper grid needs 5,000 .* class 8 .* has 122"):
        grid(name, available=DIGITS)
    with pytest.raises(LongTailedError, match=r"small grid needs 24 training images"):
        grid(name, "small", (100, 23, 50))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "similar-samples",
            {"changes": ["similar.mode=append"]},
            "all settings of similar",
        ),
        ("similar-samples", {"in_memory": False}, "these images are files; store small images"),
        ("pre-training", {"changes": ["method=ldam"]}, "leave out method and its options"),
        ("architectures", {"changes": ["sampler=class-balanced"]}, "leave out method and its"),
        ("architectures", {"changes": ["network=resnet20"]}, "leave out network"),
    ],
)
def test_what_a_grid_would_drop_is_refused_before_training(name, changes, message):
    with pytest.raises(LongTailedError, match=message):
        grid(name, "small", DIGITS, **changes)


def test_a_meta_set_takes_its_images_from_what_the_grid_may_use():
    setup = make_setup("toy-case-1", overrides=["method=metasaug"])
    assert setup.available == tuple(count - 10 for count in DIGITS)
    assert counts(EXPERIMENTS["toy-case-1"].points(setup))[-1][0] == 110


def test_setups_take_overrides_of_every_run():
    setup = make_setup("toy-case-1", overrides=["epochs=2", "method=ldam", "similar.mode=append"])
    assert setup.available == DIGITS
    stage = setup.base.stages[0]
    assert (stage.epochs, stage.method, setup.base.data.similar.mode) == (2, "ldam", "append")
    assert setup.base.data.holdout == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "huge"}, "unknown size 'huge'"),
        ({"overrides": ["imbalance=20"]}, "sets the class sizes itself; leave out imbalance"),
        ({"overrides": ["counts=[9,9]"]}, "leave out counts"),
        ({"overrides": ["seed=3"]}, "give them as seeds"),
        ({"overrides": ["epoch=3"]}, "unknown key 'epoch'"),
        ({"data": "no-such-folder"}, "no-such-folder"),
    ],
)
def test_bad_setups_are_one_sentence(changes, message):
    with pytest.raises(LongTailedError, match=message):
        make_setup("toy-case-1", **changes)


def test_the_base_recipe_survives_its_own_overrides():
    base = make_setup("toy-case-1").base
    assert override(base, {}) == base


def test_classes_without_test_images_are_one_sentence(tmp_path):
    for split, classes in (("train", "ab"), ("test", "a")):
        for name in classes:
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(30):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    with pytest.raises(LongTailedError, match=r"all with test images; .* has 2 of which 1"):
        make_setup("toy-case-1", data=str(tmp_path))
