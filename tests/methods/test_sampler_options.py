"""The settings of a sampler reach it from a method's options."""

from __future__ import annotations

import numpy as np
import pytest

from longtailed.data import make_sampler
from longtailed.data.streams import step_seed
from longtailed.methods import METHODS, build_method, method_class, method_options

BY_SAMPLER = {"effective-number": {"beta": 0.5}, "class-aware": {"samples_per_class": 1}}
SAMPLED = [name for name in METHODS if "sampler" in method_options(name)]


def test_these_methods_draw_with_a_sampler_of_their_own():
    assert {"ce-drs", "ldam-drs", "rsg-ldam-drs", "crt", "balanced-softmax", "bcl"} <= set(SAMPLED)


@pytest.mark.parametrize("kind", BY_SAMPLER)
@pytest.mark.parametrize("name", SAMPLED)
def test_a_sampler_gets_its_settings(name, kind, splits, small_network):
    network = small_network(head=method_class(name).head or "linear")
    given = {**BY_SAMPLER[kind], "sampler": kind, "sampler_start": 2}
    method = build_method(name, network, [24, 12, 6, 3], **given)
    feed = splits.open("train", method.streams["train"], batch_size=9, seed=4)
    wanted = make_sampler(
        kind, feed.imageset.labels, 4, seed=step_seed(4, "train"), **BY_SAMPLER[kind]
    )
    assert np.array_equal(feed.order(3, 10).ravel(), wanted.indices(3, 10))
    usual = make_sampler(kind, feed.imageset.labels, 4, seed=step_seed(4, "train"))
    assert not np.array_equal(wanted.indices(3, 10), usual.indices(3, 10))
    plain = make_sampler("instance", feed.imageset.labels, 4, seed=step_seed(4, "train"))
    assert np.array_equal(feed.order(1, 10).ravel(), plain.indices(1, 10))
