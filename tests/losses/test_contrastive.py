from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from longtailed.errors import LongTailedError
from longtailed.losses import balanced_contrastive_loss, supervised_contrastive_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "bcl_loss.npz")
CASES = [case for case in range(9) if f"loss_{case}" in GOLDEN.files]


def example(labels, num_classes=4, views=2, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (len(labels), views, d)
    features = torch.randn(size, generator=generator, dtype=torch.float64)
    prototypes = torch.randn(num_classes, d, generator=generator, dtype=torch.float64)
    return normalize(features, dim=-1), torch.tensor(labels), normalize(prototypes, dim=-1)


def loop(features, labels, prototypes, temperature):
    """The definition, vector by vector; without prototypes the supervised contrastive loss."""
    balanced = prototypes is not None
    vectors = [view for views in features.tolist() for view in views]
    classes = [label for label, views in zip(labels.tolist(), features, strict=True) for _ in views]
    anchors = len(vectors)
    if balanced:
        vectors += prototypes.tolist()
        classes += range(len(prototypes))
    total = 0.0
    for i in range(anchors):
        denominator, positives = 0.0, []
        for j in range(len(vectors)):
            if j == i:
                continue
            s = sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True)) / temperature
            same = classes[i] == classes[j]
            size = classes.count(classes[j]) - same if balanced else 1
            denominator += math.exp(s) / size
            positives += [s] if same else []
        if positives:
            total += sum(math.log(denominator) - s for s in positives) / len(positives)
    return total / anchors


@pytest.mark.parametrize("case", CASES)
def test_equals_the_golden_values_and_gradients(case):
    features = torch.tensor(GOLDEN[f"features_{case}"], requires_grad=True)
    prototypes = torch.tensor(GOLDEN[f"centers_{case}"], requires_grad=True)
    labels, temperature = (GOLDEN[f"{name}_{case}"] for name in ("targets", "temperature"))
    loss = balanced_contrastive_loss(
        features, torch.tensor(labels), prototypes, temperature=float(temperature)
    )
    loss.backward()
    np.testing.assert_allclose(loss.item(), GOLDEN[f"loss_{case}"], rtol=1e-5)
    for tensor, name in ((features, "grad_features"), (prototypes, "grad_centers")):
        np.testing.assert_allclose(tensor.grad, GOLDEN[f"{name}_{case}"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("labels", [[0, 1, 1, 3], [2, 2, 2], [1], [0, 1, 2, 3, 3, 3]])
@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_equals_an_explicit_loop(labels, views, temperature):
    features, classes, prototypes = example(labels, views=views)
    loss = balanced_contrastive_loss(features, classes, prototypes, temperature)
    assert loss.item() == pytest.approx(loop(features, classes, prototypes, temperature), rel=1e-10)


@pytest.mark.parametrize("labels", [[0, 1, 1, 3], [2, 2, 2], [1], [0, 1, 2]])
@pytest.mark.parametrize("views", [1, 2])
def test_supervised_equals_an_explicit_loop(labels, views):
    features, classes, _ = example(labels, views=views)
    lone = len(labels) == views == 1  # a vector with nothing to be compared with
    expected = 0.0 if lone else loop(features, classes, None, 0.2)
    loss = supervised_contrastive_loss(features, classes, 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_gradients():
    features, labels, prototypes = example([0, 1, 1, 3])
    features.requires_grad_()
    prototypes.requires_grad_()
    torch.autograd.gradcheck(
        lambda x, p: balanced_contrastive_loss(x, labels, p, 0.3), (features, prototypes)
    )
    torch.autograd.gradcheck(lambda x: supervised_contrastive_loss(x, labels, 0.3), features)
    lone = example([0, 1, 2], views=1)[0].requires_grad_()
    supervised_contrastive_loss(lone, torch.tensor([0, 1, 2])).backward()
    assert torch.equal(lone.grad, torch.zeros_like(lone))


def test_gradient_twice_through_one_graph_and_scaled():
    features, labels, prototypes = example([0, 1, 1, 3])
    features.requires_grad_()
    loss = balanced_contrastive_loss(features, labels, prototypes)
    (once,) = torch.autograd.grad(loss, features, retain_graph=True)
    (scaled,) = torch.autograd.grad(3 * loss, features)
    torch.testing.assert_close(scaled, 3 * once)


def test_order_of_images_and_views_does_not_matter():
    features, labels, prototypes = example([0, 1, 1, 3])
    loss = balanced_contrastive_loss(features, labels, prototypes)
    turned = balanced_contrastive_loss(features.flip(0, 1), labels.flip(0), prototypes)
    torch.testing.assert_close(turned, loss)


def test_low_temperatures_and_half_precision_stay_finite():
    features, labels, prototypes = example([0, 1, 1, 3])
    for dtype, temperature in product((torch.float32, torch.bfloat16), (1e-3, 1e-6)):
        x, p = features.to(dtype).requires_grad_(), prototypes.to(dtype)
        loss = balanced_contrastive_loss(x, labels, p, temperature)
        loss.backward()
        assert loss.dtype == torch.float32
        assert bool(loss.isfinite() & x.grad.isfinite().all())
    exact = balanced_contrastive_loss(features.float(), labels, prototypes.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(
            balanced_contrastive_loss(features.float(), labels, prototypes.float()), exact
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, "temperature must be finite and at least 1e-06; it is 0"),
        ({"temperature": -1.0}, "the temperature must be finite and at least"),
        ({"temperature": 9e-7}, "it is 9e-07"),
        ({"temperature": math.nan}, "it is nan"),
        ({"temperature": math.inf}, "it is inf"),
        (
            {"features": torch.zeros(0, 2, 5), "labels": torch.zeros(0, dtype=torch.int64)},
            r"features need an image, a view and a dimension; they are \[0, 2, 5\]",
        ),
        ({"labels": torch.tensor([0, 1])}, r"labels must be int64 \[4\]"),
        ({"labels": torch.zeros(4)}, "they are torch.float32"),
        ({"features": torch.zeros(4, 5)}, r"must have the shape \[N, views, d\]"),
        ({"prototypes": torch.zeros(4, 6)}, r"prototypes must have the shape \[C, 5\]"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(changes, message):
    features, labels, prototypes = example([0, 1, 1, 3])
    given = {"features": features, "labels": labels, "prototypes": prototypes, **changes}
    with pytest.raises(LongTailedError, match=message) as caught:
        balanced_contrastive_loss(**given)
    assert "\n" not in str(caught.value)
    if "prototypes" not in changes:
        del given["prototypes"]
        with pytest.raises(LongTailedError, match=message):
            supervised_contrastive_loss(**given)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_without_a_prototype_is_refused(label):
    features, labels, prototypes = example([0, 1, 1, 3])
    labels[2] = label
    with pytest.raises(LongTailedError, match=r"a label is not in 0\.\.3"):
        balanced_contrastive_loss(features, labels, prototypes[:4])
