"""Balanced contrastive learning: what the two terms are made of, and its options."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from longtailed.errors import LongTailedError
from longtailed.losses import balanced_contrastive_loss, logit_adjusted_loss
from longtailed.methods import Progress, build_method

COUNTS = [24, 12, 6, 3]


def first_batch(method, splits, seed=0):
    return next(splits.open("train", method.streams["train"], 12, seed).epoch(0, 1))


def test_both_terms_are_the_published_losses_of_one_forward(small_network, splits):
    settings = {"tau": 0.7, "temperature": 0.2, "classifier_weight": 1.5, "contrastive_weight": 0.4}
    method = build_method("bcl", small_network(), COUNTS, **settings).train()
    batch = first_batch(method, splits)
    terms = method({"train": batch}, Progress(1, 1, torch.Generator()))
    network = method.network
    features = network.features(torch.cat(batch.images))  # batch statistics over all views
    embeddings = normalize(method.projection(features)[12:].unflatten(0, (2, 12)), dim=-1)
    prototypes = normalize(method.prototype_head(network.head.weight), dim=-1)
    contrastive = balanced_contrastive_loss(
        embeddings.transpose(0, 1), batch.labels, prototypes, 0.2
    )
    adjusted = logit_adjusted_loss(network.head(features[:12]), batch.labels, COUNTS, 0.7)
    torch.testing.assert_close(terms["contrastive"], 0.4 * contrastive)
    torch.testing.assert_close(terms["logit_adjusted"], 1.5 * adjusted)


def test_prototypes_come_from_the_class_weights(small_network):
    method = build_method("bcl", small_network(), COUNTS)
    assert method.prototypes().shape == (4, 128)
    method.prototypes().square().sum().backward()
    assert method.network.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("num_classes", "prototypes"), [(40, 32), (10, 10)])
def test_published_cifar_prototypes_come_from_feature_rows(small_network, num_classes, prototypes):
    options = {"prototype_source": "feature_rows_tiled"}
    method = build_method("bcl", small_network(num_classes), [5] * num_classes, **options)
    rows = method.prototypes()
    assert method.prototype_head[0].in_features == num_classes
    assert rows.shape == (num_classes, 128)
    assert len(torch.unique(rows, dim=0)) == prototypes
    if num_classes > 32:  # there are 32 features
        assert torch.equal(rows[32:], rows[: num_classes - 32])


def test_a_cosine_head_is_scaled_and_a_linear_one_is_not(small_network, splits):
    images = next(splits.scan("test")).images[0]
    for head, scale in (("linear", 1), ("cosine", 30)):
        method = build_method("bcl", small_network(4, head), COUNTS).eval()
        with torch.no_grad():
            torch.testing.assert_close(method.predict(images), scale * method.network(images))
        terms = method.train()(
            {"train": first_batch(method, splits)}, Progress(1, 1, torch.Generator())
        )
        assert all(bool(term.isfinite()) for term in terms.values())


def test_only_the_network_is_needed_to_predict(small_network):
    method = build_method("bcl", small_network(), COUNTS)
    kept = [key for key in method.state_dict() if key.startswith(method.saved_prefixes)]
    assert not any("projection" in key or "prototype" in key for key in kept)


def test_a_batch_of_one_class_works(small_network, splits):
    method = build_method("bcl", small_network(), COUNTS).train()
    batch = first_batch(method, splits)
    batch.labels = torch.full_like(batch.labels, 2)
    terms = method({"train": batch}, Progress(1, 1, torch.Generator()))
    sum(terms.values()).backward()
    assert all(bool(term.isfinite()) for term in terms.values())
    assert all(bool(p.grad.isfinite().all()) for p in method.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "option 'temperature' of method 'bcl' cannot be 0"),
        ({"temperature": 1e-7}, "option 'temperature' of method 'bcl' cannot be 1e-07"),
        ({"tau": float("nan")}, "option 'tau' of method 'bcl' cannot be nan"),
        ({"contrastive_weight": float("inf")}, "option 'contrastive_weight' .* cannot be inf"),
        ({"scale": float("inf")}, "option 'scale' of method 'bcl' cannot be inf"),
        ({"embedding_dim": 0}, "option 'embedding_dim' of method 'bcl' cannot be 0"),
        (
            {"prototype_source": "rows"},
            "option 'prototype_source' of method 'bcl' cannot be 'rows'",
        ),
        ({"views": ("strong",)}, "option 'views' of method 'bcl' cannot be"),
        ({"omega": 0.1}, "unknown option of method 'bcl' 'omega'"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(small_network, options, message):
    with pytest.raises(LongTailedError, match=message) as caught:
        build_method("bcl", small_network(), COUNTS, **options)
    assert "\n" not in str(caught.value)


def test_one_class_is_refused(small_network):
    with pytest.raises(LongTailedError, match="needs at least two classes"):
        build_method("bcl", small_network(1), [5])
