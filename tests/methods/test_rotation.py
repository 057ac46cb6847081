"""Rotation prediction: turned images and their labels as published, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from longtailed.errors import LongTailedError
from longtailed.methods import build_method, rotate_batch
from longtailed.methods.rotation import draw_turns
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule

GOLDEN = Path(__file__).parents[1] / "golden" / "rotation.npz"


def test_images_are_turned_as_published():
    golden = np.load(GOLDEN)
    for case in (key.removeprefix("images_") for key in golden if key.startswith("images_")):
        images = torch.from_numpy(golden[f"images_{case}"])
        turns = torch.from_numpy(golden[f"targets_{case}"]).long()
        assert torch.equal(rotate_batch(images, turns), torch.from_numpy(golden[f"rotated_{case}"]))


def test_every_turn_equals_numpys(splits):
    images = next(splits.scan("train")).images[0]
    for turns in range(4):
        turned = rotate_batch(images, torch.full((len(images),), turns))
        expected = np.rot90(images.numpy(), turns, axes=(2, 3))
        assert np.array_equal(turned.numpy(), expected)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(LongTailedError, match=r"only square images.*8 x 6"):
        rotate_batch(torch.zeros(2, 3, 8, 6), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("number", [1, 4, 7, 128])
def test_turns_are_nearly_equally_many(number):
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(draw_turns(number, generator), minlength=4)
    assert counts.sum() == number
    assert counts.max() <= number // 4 + 1
    assert not torch.equal(draw_turns(64, generator), draw_turns(64, generator))


def test_labels_and_the_classifier_take_no_part(small_network, splits_of, fabric):
    options = FitOptions(
        epochs=8, batch_size=12, optimizer=Optimizer(lr=0.02), schedule=Schedule(kind="constant")
    )
    networks = []
    for counts in ([24, 12, 6, 3], [3, 6, 12, 24]):
        same_images = splits_of([24, 12, 6, 3])
        network = small_network()
        head = network.head.weight.detach().clone()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of the head for the turns
            method = build_method("rotation", network, counts)
        fit(method, Job(fabric, same_images, options, show_progress=False))
        assert torch.equal(network.head.weight, head)
        assert 0 < method.metrics()["rotation_accuracy"] <= 1
        networks.append(network)
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_unlabelled_images_can_be_used(small_network, splits_of, imageset_of, fabric):
    splits = splits_of([6, 6, 6, 6])
    options = FitOptions(epochs=1, batch_size=8)
    method = build_method("rotation", small_network(), [6, 6, 6, 6], images="unlabelled")
    job = Job(fabric, splits, options, show_progress=False)
    with pytest.raises(LongTailedError, match="there are no unlabelled images; set"):
        fit(method, job)
    splits.sets["unlabelled"] = imageset_of([16, 0, 0, 0])
    fit(method, job)
    splits.sets["unlabelled"] = imageset_of([0, 0, 0, 0])
    with pytest.raises(LongTailedError, match="the split 'unlabelled' has no images"):
        fit(method, job)
