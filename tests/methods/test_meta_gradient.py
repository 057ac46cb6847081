"""The meta gradient: golden values, double differentiation, and what it must leave alone."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from longtailed.errors import LongTailedError
from longtailed.losses import isda_logits, margin_cross_entropy
from longtailed.methods.meta_gradient import classifier_meta_gradient, meta_covariance_gradient
from longtailed.methods.tangents import ConvolutionRecord, logits_tangent

GOLDEN = Path(__file__).parents[1] / "golden"


class Tapped(nn.Module):
    """Gives the features too, as the meta gradient wants it."""

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x):
        features = self.backbone(x)
        return features, self.head(features)


def criterion_of(class_weights, ratio, margins):
    def criterion(logits, labels, weight, covariance):
        adjusted = isda_logits(logits, labels, weight, covariance, ratio)
        return margin_cross_entropy(adjusted, labels, margins, 1.0, class_weights)

    return criterion


def double_backward(model, criterion, covariance, batch, meta_batch, inner_lr):
    """The definition: differentiate twice through the virtual step."""
    leaf = covariance.clone().requires_grad_()
    parameters = dict(model.named_parameters())
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    logits = functional_call(model, {**parameters, **buffers}, (batch[0],))[1]
    loss = criterion(logits, batch[1], model.head.weight, leaf)
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    ahead = {n: p - inner_lr * g for (n, p), g in zip(parameters.items(), gradients, strict=True)}
    logits = functional_call(model, {**ahead, **buffers}, (meta_batch[0],))[1]
    return torch.autograd.grad(F.cross_entropy(logits, meta_batch[1]), leaf)[0]


def golden(name: str):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {
            key.removesuffix("_0"): torch.from_numpy(arrays[key])
            for key in arrays
            if key.endswith("_0")
        }


def test_golden_meta_step():
    g = golden("metasaug_meta_step")
    hidden, head = nn.Linear(6, 5), nn.Linear(5, 7)
    model = Tapped(nn.Sequential(hidden, nn.Tanh()), head).double()
    with torch.no_grad():
        for layer, name in ((hidden, "hidden"), (head, "linear")):
            layer.weight.copy_(g[f"init_{name}_weight"])
            layer.bias.copy_(g[f"init_{name}_bias"])
    criterion = criterion_of(g["class_weights"], g["ratio"], g["margins"])
    gradient = meta_covariance_gradient(
        model, criterion, g["step0_cov_before"], (g["x_train"][0], g["y_train"][0]),
        (g["x_meta"][0], g["y_meta"]), g["inner_lr"].item(),
    )  # fmt: skip
    expected = g["step0_grad_cov"]
    assert (gradient - expected).abs().max() <= 1e-7 * expected.abs().max() + 1e-14


def test_golden_meta_step_of_a_classifier_in_closed_form_and_in_general():
    g = golden("metasaug_meta_step_diag")
    head = nn.Linear(5, 7).double()
    with torch.no_grad():
        head.weight.copy_(g["init_weight"])
        head.bias.copy_(g["init_bias"])
    batch, meta = (g["x_train"][0], g["y_train"][0]), (g["x_meta"], g["y_meta"])
    lr, covariance = g["inner_lr"].item(), g["step0_cov_before"]
    closed = classifier_meta_gradient(
        batch, meta, head.weight, head.bias, covariance, g["ratio"], lr, g["class_weights"]
    )
    criterion = criterion_of(g["class_weights"], g["ratio"], torch.zeros(7))
    general = meta_covariance_gradient(
        Tapped(nn.Identity(), head), criterion, covariance, batch, meta, lr
    )
    expected = g["step0_grad_cov"]
    for gradient in (closed, general):
        assert (gradient - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert (closed - general).abs().max() <= 1e-11 * general.abs().max()


@pytest.mark.parametrize("bias", [True, False])
def test_closed_form_with_margins_equals_double_differentiation(bias):
    torch.manual_seed(0)
    head = nn.Linear(4, 6, bias=bias).double()
    covariance = torch.rand(6, 4, dtype=torch.float64)
    batch = (torch.randn(9, 4, dtype=torch.float64), torch.randint(0, 6, (9,)))
    meta = (torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 6, (8,)))
    weights, margins = (torch.rand(6, dtype=torch.float64) for _ in range(2))
    closed = classifier_meta_gradient(
        batch, meta, head.weight, head.bias, covariance, 0.7, 0.3, weights, margins
    )
    criterion = criterion_of(weights, 0.7, margins)
    expected = double_backward(Tapped(nn.Identity(), head), criterion, covariance, batch, meta, 0.3)
    torch.testing.assert_close(closed, expected, rtol=1e-9, atol=1e-13)


@pytest.fixture
def conv_case(small_network):
    torch.manual_seed(0)
    network = small_network()
    model = Tapped(network.backbone, network.head).double().train()
    size = network.head.in_features
    root = torch.randn(4, size, size, dtype=torch.float64)
    images, labels = torch.randn(2, 10, 3, 8, 8).double(), torch.randint(0, 4, (2, 10))
    weights = torch.rand(4, dtype=torch.float64) + 0.5
    criterion = criterion_of(weights, 0.6, torch.tensor([0.1, 0.2, 0.3, 0.5]))
    return model, criterion, root @ root.mT / size, *zip(images, labels, strict=True), 0.1


def test_forward_mode_equals_double_differentiation_through_batch_norm(conv_case):
    model = conv_case[0]
    before = copy.deepcopy(model.state_dict())
    gradient, expected = meta_covariance_gradient(*conv_case), double_backward(*conv_case)
    assert expected.abs().max() > 1e-6
    assert (gradient - expected).abs().max() <= 1e-9 * expected.abs().max()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in model.parameters())


def test_in_evaluation_mode_too(conv_case):
    conv_case[0].eval()
    gradient, expected = meta_covariance_gradient(*conv_case), double_backward(*conv_case)
    assert (gradient - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_frozen_parameters_take_no_part(conv_case):
    model, criterion, covariance, batch, meta, lr = conv_case
    model.backbone.requires_grad_(False)
    gradient = meta_covariance_gradient(*conv_case)
    with torch.no_grad():
        inputs, meta_inputs = model.backbone(batch[0]), model.backbone(meta[0])
    expected = double_backward(
        Tapped(nn.Identity(), model.head), criterion, covariance,
        (inputs, batch[1]), (meta_inputs, meta[1]), lr,
    )  # fmt: skip
    assert (gradient - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_a_recorded_pass_gives_the_same_tangent_and_the_memory_format_stays():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True),  # overwrites what was recorded
        nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), nn.SiLU(inplace=True),
        nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Flatten(),
    ]  # fmt: skip
    model = Tapped(nn.Sequential(*layers), nn.Linear(4 * 36, 5)).double()
    model.to(memory_format=torch.channels_last).train()
    formats = []
    model.backbone[-2].register_forward_hook(
        lambda _m, _i, out: formats.append(out.is_contiguous(memory_format=torch.channels_last))
    )
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    parameters = dict(model.named_parameters())
    direction = {name: torch.randn_like(p) for name, p in parameters.items()}
    with ConvolutionRecord() as record:
        logits = model(images)[1]
    reused = logits_tangent(model, parameters, direction, images, record)
    fresh = logits_tangent(model, parameters, direction, images)
    assert all(formats)
    torch.testing.assert_close(reused, fresh, rtol=1e-12, atol=1e-12)
    step = 1e-6
    moved = {name: p + step * direction[name] for name, p in parameters.items()}
    difference = (functional_call(model, moved, (images,))[1] - logits) / step
    torch.testing.assert_close(fresh, difference.detach(), rtol=1e-3, atol=1e-3)
    logits.sum().backward()  # the recorded pass still has what its own gradient needs


def test_attention_has_a_tangent():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(4, 12)

        def forward(self, x):
            query, key, value = self.project(x)[:, None].chunk(3, dim=-1)
            return F.scaled_dot_product_attention(query, key, value).mean(dim=(1, 2))

    torch.manual_seed(0)
    model = Tapped(Attention(), nn.Linear(4, 3)).double()
    parameters = dict(model.named_parameters())
    direction = {name: torch.randn_like(p) for name, p in parameters.items()}
    inputs = torch.randn(2, 5, 4, dtype=torch.float64)
    tangent = logits_tangent(model, parameters, direction, inputs)
    moved = {name: p + 1e-6 * direction[name] for name, p in parameters.items()}
    difference = functional_call(model, moved, (inputs,))[1] - model(inputs)[1]
    torch.testing.assert_close(tangent, difference.detach() / 1e-6, rtol=1e-4, atol=1e-5)


def test_a_covariance_that_does_not_fit_is_one_sentence(conv_case):
    model, criterion, covariance, *rest = conv_case
    with pytest.raises(LongTailedError, match="the covariance must have the shape") as caught:
        meta_covariance_gradient(model, criterion, covariance[:3], *rest)
    assert "\n" not in str(caught.value)
