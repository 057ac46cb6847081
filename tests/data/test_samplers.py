from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import distributed
from torch.utils.data import DataLoader, Sampler

from longtailed.data.class_aware import class_aware_sequence
from longtailed.data.class_probabilities import (
    KINDS,
    class_probabilities,
    effective_number_weights,
)
from longtailed.data.samplers import SAMPLERS, make_sampler
from longtailed.errors import LongTailedError

GOLDEN = Path(__file__).parents[1] / "golden"
COUNTS = [120, 40, 0, 9, 1]
LABELS = np.random.RandomState(0).permutation(np.repeat(np.arange(5), COUNTS))
WITH_REPLACEMENT = sorted(set(KINDS) - {"instance", "class-aware"})


def test_every_kind_has_a_sampler() -> None:
    assert set(SAMPLERS) == set(KINDS)


def test_probabilities_equal_the_golden_values() -> None:
    golden = np.load(GOLDEN / "sampling_strategies.npz")
    counts = golden["counts_0"]
    np.testing.assert_allclose(
        class_probabilities("square-root", counts), golden["sqrt_class_prob_0"], rtol=1e-12
    )
    progressive = [class_probabilities("progressive", counts, epoch, 10) for epoch in range(10)]
    np.testing.assert_allclose(progressive, golden["progressive_class_prob_0"], rtol=1e-12)


def test_effective_numbers_equal_the_golden_values() -> None:
    golden = np.load(GOLDEN / "cb_weights.npz")
    counts, beta = golden["cls_num_0"], float(golden["beta_0"])
    np.testing.assert_allclose(
        effective_number_weights(counts, beta), golden["sampler_cls_weight_0"], rtol=1e-12
    )
    np.testing.assert_allclose(
        class_probabilities("effective-number", counts, beta=beta),
        golden["sampler_cls_mass_0"],
        rtol=1e-12,
    )
    labels = np.repeat(np.arange(len(counts)), counts)
    sampler = make_sampler("effective-number", labels, len(counts), seed=0)
    assert len(sampler) == golden["sampler_num_samples_0"]


def test_resampling_weights_equal_those_of_the_published_pretraining() -> None:
    golden = np.load(GOLDEN / "ssp_schedule.npz")
    counts = golden["counts_0"]
    weights = effective_number_weights(counts, beta=0.9999)
    np.testing.assert_allclose(weights, golden["sampler_weight_per_class_0"], rtol=1e-12)
    labels = np.repeat(np.arange(len(counts)), counts)
    sampler = make_sampler("effective-number", labels, len(counts), seed=0)
    assert len(sampler) == golden["sampler_len_0"]


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_normalized_and_zero_for_absent_classes(kind: str) -> None:
    probabilities = class_probabilities(kind, COUNTS, epoch=3, epochs=8)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[2] == 0
    assert np.all(probabilities[[0, 1, 3, 4]] > 0)


def test_known_probabilities() -> None:
    np.testing.assert_allclose(class_probabilities("instance", [3, 1, 0]), [0.75, 0.25, 0])
    np.testing.assert_allclose(class_probabilities("class-balanced", [3, 1, 0]), [0.5, 0.5, 0])
    np.testing.assert_allclose(class_probabilities("reversed", [3, 1, 0]), [0.25, 0.75, 0])
    np.testing.assert_allclose(
        class_probabilities("effective-number", [3, 1, 0], beta=0), [0.75, 0.25, 0]
    )


def test_progressive_goes_from_instance_to_balanced() -> None:
    for epoch, kind in ((0, "instance"), (19, "class-balanced"), (25, "class-balanced")):
        np.testing.assert_allclose(
            class_probabilities("progressive", COUNTS, epoch, 20), class_probabilities(kind, COUNTS)
        )
    np.testing.assert_allclose(
        class_probabilities("progressive", COUNTS, 0, 1), class_probabilities("instance", COUNTS)
    )


@pytest.mark.parametrize("kind", WITH_REPLACEMENT)
def test_draws_follow_the_probabilities(kind: str) -> None:
    draws = 60_000
    sampler = make_sampler(kind, LABELS, 5, seed=1, length=draws)
    positions = sampler.indices(4, 10)
    expected = class_probabilities(kind, COUNTS, 4, 10)
    shares = np.bincount(LABELS[positions], minlength=5) / draws
    tolerance = 5 * np.sqrt(expected * (1 - expected) / draws)
    assert np.all(np.abs(shares - expected) <= tolerance)
    # Within a class every image is equally likely.
    of_class = np.bincount(positions, minlength=len(LABELS))[LABELS == 1]
    mean = of_class.mean()
    assert np.all(np.abs(of_class - mean) < 6 * np.sqrt(mean))


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_are_deterministic_and_need_no_replay(kind: str) -> None:
    first = make_sampler(kind, LABELS, 5, seed=3)
    epochs = [first.indices(epoch, 6) for epoch in range(3)]
    fresh = make_sampler(kind, torch.from_numpy(LABELS), 5, seed=3).indices(2, 6)
    assert fresh.dtype == np.int64
    assert np.array_equal(fresh, epochs[2])
    assert not np.array_equal(epochs[1], epochs[2])
    assert not np.array_equal(make_sampler(kind, LABELS, 5, seed=4).indices(2, 6), epochs[2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_sequence_of_one_process(kind: str, world_size: int) -> None:
    whole = make_sampler(kind, LABELS, 5, seed=3).indices(1, 4)
    shares = [
        make_sampler(kind, LABELS, 5, seed=3, rank=rank, world_size=world_size).indices(1, 4)
        for rank in range(world_size)
    ]
    share = len(LABELS) // world_size
    assert {len(positions) for positions in shares} == {share}
    assert np.array_equal(np.stack(shares, axis=1).ravel(), whole[: share * world_size])


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_loader_draws_by_a_sampler(kind: str) -> None:
    sampler = make_sampler(kind, LABELS, 5, seed=3, epochs=4)
    assert isinstance(sampler, Sampler)
    positions = torch.arange(len(LABELS))
    for workers, epoch in ((0, 0), (0, 2), (1, 2)):
        sampler.set_epoch(epoch)
        loader = DataLoader(positions, batch_size=32, sampler=sampler, num_workers=workers)
        assert len(loader) == 6
        assert np.array_equal(torch.cat([*loader]), sampler.indices(epoch, 4))
    assert [type(position) for position in [*sampler][:2]] == [int, int]


def test_iterating_over_the_progressive_sampler_needs_the_number_of_epochs() -> None:
    sampler = make_sampler("progressive", LABELS, 5)
    assert len(sampler.indices(1, 4)) == len(LABELS)
    with pytest.raises(LongTailedError, match="give it epochs"):
        iter(sampler)


def test_ranks_are_those_of_the_process_group(monkeypatch) -> None:
    whole = [*make_sampler("class-aware", LABELS, 5)]
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    assert [*make_sampler("class-aware", LABELS, 5)] == whole[1::2]
    assert [*make_sampler("class-aware", LABELS, 5, rank=0, world_size=1)] == whole
    assert len(DataLoader(LABELS, sampler=make_sampler("instance", LABELS, 5))) == len(whole) // 2


def test_fabric_leaves_a_sampler_as_it_is() -> None:
    fabric = Fabric(accelerator="cpu", strategy="ddp", devices=2)  # not launched
    sampler = make_sampler("class-balanced", LABELS, 5)
    assert not fabric._requires_distributed_sampler(DataLoader(LABELS, sampler=sampler))


def test_instance_visits_each_image_once() -> None:
    assert sorted(make_sampler("instance", LABELS, 5, seed=0).indices(0, 1)) == list(range(170))
    longer = make_sampler("instance", LABELS, 5, seed=0, length=400).indices(0, 1)
    assert np.bincount(longer, minlength=170).min() == 2
    assert np.bincount(longer, minlength=170).max() == 3


@pytest.mark.parametrize("kind", KINDS)
def test_more_processes_than_images_get_one_each(kind: str) -> None:
    for rank in range(4):
        sampler = make_sampler(kind, [0, 1], 2, seed=0, rank=rank, world_size=4)
        assert len(sampler) == len(sampler.indices(0, 1)) == 1


def test_class_aware_sequence_equals_the_golden_one() -> None:
    golden = np.load(GOLDEN / "class_aware_sampler.npz")
    sequence = class_aware_sequence(
        golden["labels_0"],
        num_classes=3,
        length=int(golden["len_0"]),
        samples_per_class=int(golden["num_samples_cls_0"]),
        generator=random.Random(int(golden["seed_0"])),
    )
    assert sequence.tolist() == golden["sequence_0"].tolist()


@pytest.mark.parametrize("rule", ["sampler", "sequence"])
@pytest.mark.parametrize("samples_per_class", [1, 4])
def test_class_aware_cycles(rule: str, samples_per_class: int) -> None:
    length = 1000
    if rule == "sampler":
        sampler = make_sampler(
            "class-aware", LABELS, 5, 0, length=length, samples_per_class=samples_per_class
        )
        sequence = sampler.indices(0, 1)
    else:
        generator = random.Random(0)
        sequence = class_aware_sequence(LABELS, 5, length, samples_per_class, generator)
    classes = LABELS[sequence]
    turns = classes[: length // samples_per_class * samples_per_class]
    turns = turns.reshape(-1, samples_per_class)
    assert np.all(turns == turns[:, :1])
    rounds = turns[: len(turns) // 4 * 4, 0].reshape(-1, 4)
    assert np.all(np.sort(rounds, axis=1) == [0, 1, 3, 4])
    for label, count in enumerate(COUNTS):
        drawn = sequence[classes == label]
        for start in range(0, len(drawn) - count + 1, max(count, 1)):
            assert len(set(drawn[start : start + count])) == count


def test_class_aware_shuffles_classes_and_images() -> None:
    sampler = make_sampler("class-aware", np.repeat(np.arange(6), 8), 6, seed=0, length=480)
    sequence = sampler.indices(0, 1)
    turns = (sequence[::4] // 8).reshape(-1, 6)
    assert len({tuple(turn) for turn in turns}) > 10
    first_cycle = sequence[sequence // 8 == 2][:8]
    second_cycle = sequence[sequence // 8 == 2][8:16]
    assert not np.array_equal(first_cycle, second_cycle)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": []}, "at least one image"),
        ({"labels": [0, 5]}, "labels run from 0 to 5, but there are 5 classes"),
        ({"rank": 2, "world_size": 2}, r"rank 2 is not in 0\.\.1"),
        ({"length": 0}, "its length must be positive"),
        ({"seed": -1}, "seed must not be negative"),
        ({"kind": "class-aware", "samples_per_class": 0}, "samples_per_class must be at least 1"),
        ({"kind": "class-balance"}, "unknown sampler 'class-balance'; did you mean"),
    ],
)
def test_bad_arguments_are_refused(options, words: str) -> None:
    arguments = {"kind": "instance", "labels": LABELS, "num_classes": 5, "seed": 0} | options
    with pytest.raises(LongTailedError, match=words):
        make_sampler(**arguments)


def test_bad_probabilities_are_refused() -> None:
    with pytest.raises(LongTailedError, match="unknown sampler 'sqrt'"):
        class_probabilities("sqrt", COUNTS)
    with pytest.raises(LongTailedError, match="no images to sample from"):
        class_probabilities("instance", [0, 0])
    with pytest.raises(LongTailedError, match="beta must be at least 0 and below 1"):
        class_probabilities("effective-number", COUNTS, beta=1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_of_a_large_set_takes_a_fraction_of_a_second(kind: str) -> None:
    sizes = np.maximum(2, 800 * np.exp(-np.arange(8142) / 550)).astype(np.int64)
    labels = np.repeat(np.arange(8142), sizes)
    sampler = make_sampler(kind, labels, 8142, seed=0)
    sampler.indices(0, 10)
    start = time.process_time()
    sampler.indices(1, 10)
    assert time.process_time() - start < 2  # about 0.1 s; the margin is for busy machines
