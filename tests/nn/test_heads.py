from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from longtailed.errors import LongTailedError
from longtailed.nn import HEADS, CosineHead, LinearHead

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "rsg_normed_linear.npz")


def test_cosine_head_matches_the_authors_values_and_gradients() -> None:
    features = torch.from_numpy(GOLDEN["x_0"]).requires_grad_()
    head = CosineHead(64, 10)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(GOLDEN["weight_0"]).T)
    logits = head(features)
    (logits * torch.from_numpy(GOLDEN["cot_0"])).sum().backward()
    torch.testing.assert_close(logits, torch.from_numpy(GOLDEN["out_0"]), rtol=1e-5, atol=1e-6)
    expected = torch.from_numpy(GOLDEN["grad_x_0"])
    torch.testing.assert_close(features.grad, expected, rtol=1e-4, atol=1e-6)
    expected = torch.from_numpy(GOLDEN["grad_weight_0"]).T
    torch.testing.assert_close(head.weight.grad, expected, rtol=1e-4, atol=1e-6)


def test_cosine_head_equals_a_loop_over_pairs() -> None:
    torch.manual_seed(0)
    head = CosineHead(5, 3, scale=30.0).double()
    features = torch.randn(4, 5, dtype=torch.float64)
    logits = head(features)
    for i in range(4):
        for c in range(3):
            x, w = features[i], head.weight[c]
            cosine = (
                sum(x[a] * w[a] for a in range(5)) / (x.square().sum() * w.square().sum()) ** 0.5
            )
            torch.testing.assert_close(logits[i, c], 30 * cosine)
    inputs = (features.requires_grad_(),)
    assert torch.autograd.gradcheck(head, inputs)


def test_cosine_head_starts_with_rows_of_norm_one() -> None:
    torch.manual_seed(3)
    head = CosineHead(64, 10)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(10))
    assert np.allclose(GOLDEN["init_col_norm_0"], 1)
    torch.manual_seed(3)
    raw = torch.empty(10, 64).uniform_(-1, 1)
    torch.testing.assert_close(head.weight.detach(), raw / raw.norm(dim=1, keepdim=True))


def test_cosine_head_computes_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    head = CosineHead(8, 4)
    features = torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features.bfloat16())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head(features.bfloat16().float()))


def test_a_zero_feature_has_zero_logits_and_a_finite_gradient() -> None:
    features = torch.zeros(1, 8, requires_grad=True)
    logits = CosineHead(8, 4)(features)
    logits.sum().backward()
    assert torch.equal(logits, torch.zeros(1, 4))
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_linear_head_is_a_linear_layer_with_the_default_initialisation() -> None:
    torch.manual_seed(1)
    head = LinearHead(6, 4)
    torch.manual_seed(1)
    layer = nn.Linear(6, 4)
    assert torch.equal(head.weight, layer.weight)
    assert torch.equal(head.bias, layer.bias)
    assert LinearHead(6, 4, bias=False).bias is None


@pytest.mark.parametrize("name", HEADS)
def test_heads_share_their_interface(name: str) -> None:
    head = HEADS[name](6, 4)
    assert head.weight.shape == (4, 6)
    assert (head.in_features, head.out_features) == (6, 4)
    assert head(torch.randn(2, 6)).shape == (2, 4)
    assert "6" in repr(head)


def test_a_scale_must_be_positive() -> None:
    with pytest.raises(LongTailedError, match="scale above 0"):
        CosineHead(6, 4, scale=0)
