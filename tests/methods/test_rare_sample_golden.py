"""The generator against the reference implementation's values and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from longtailed.methods import RareSampleGenerator
from longtailed.methods.rare_sample_pairs import pair_samples, trim_pairs

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = {
    "gate_weight": "gate_weight",
    "gate_bias": "gate_bias",
    "centers": "centers",
    "con_conv1_w": "contrast.conv1.weight",
    "con_conv1_b": "contrast.conv1.bias",
    "con_conv2_w": "contrast.conv2.weight",
    "con_conv2_b": "contrast.conv2.bias",
    "con_fc_w": "contrast.fc.weight",
    "con_fc_b": "contrast.fc.bias",
    "trans_w": "transform.weight",
    "trans_b": "transform.bias",
}


def golden(name: str, case: int) -> dict[str, Tensor]:
    suffix = f"_{case}"
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {k.removesuffix(suffix): file[k] for k in file.files if k.endswith(suffix)}
    return {k: torch.from_numpy(np.asarray(v)) for k, v in arrays.items() if v.dtype.kind in "fib"}


def loaded(
    case: dict[str, Tensor], head_classes: Any, layout: str = "legacy", **options: Any
) -> RareSampleGenerator:
    classes, channels, centers = case["gate_weight"].shape
    module = RareSampleGenerator(
        classes,
        channels,
        head_classes,
        centers,
        len(case["con_conv1_b"]),
        layout=layout,  # type: ignore[arg-type]
        **options,
    )
    weights = {ours: case[theirs] for theirs, ours in NAMES.items() if theirs in case}
    module.load_state_dict({**module.state_dict(), **weights})
    return module


def assert_gradients(module: RareSampleGenerator, case: dict[str, Tensor], prefix: str) -> None:
    parameters = dict(module.named_parameters())
    for theirs, ours in NAMES.items():
        gradient = parameters[ours].grad
        if prefix + theirs in case:
            expected = case[prefix + theirs]
            scale = float(expected.abs().max())
            torch.testing.assert_close(gradient, expected, rtol=3e-4, atol=1e-5 * scale)
        else:
            assert gradient is None, ours


@pytest.mark.parametrize("phase", ["pre", "post"])
def test_centre_and_contrastive_loss_equal_the_reference(phase: str) -> None:
    values = golden("rsg_cesc", 0)
    absent = set(range(len(values["gate_weight"]))) - set(values["y"].tolist())
    module = loaded(values, absent or [0])  # without a head sample nothing is generated
    features = values["x"].requires_grad_()
    _, _, cesc, mv = module(features, values["y"], phase == "post")
    torch.testing.assert_close(cesc, values[f"loss_{phase}"], rtol=1e-5, atol=0)
    if phase == "pre":
        assert float(mv.detach()) == 0
    cesc.backward()
    assert features.grad is None
    assert_gradients(module, values, f"grad_{phase}_")


@pytest.mark.parametrize("layout", ["legacy", "channels"])
def test_vector_loss_equals_the_reference(layout: str) -> None:
    values = golden("rsg_mv", 0)
    pairs = len(values["x_head"])
    centers = torch.cat((values["centers_head"], values["centers_tail"]))
    gates = torch.cat((values["gamma_head"], values["gamma_tail"]))
    # Every sample is of a class of its own, whose gates are those of the case.
    values |= {"centers": centers, "gate_bias": gates.log()}
    values["gate_weight"] = torch.zeros(2 * pairs, centers.shape[2], centers.shape[1])
    module = loaded(values, range(pairs), layout)
    features = torch.cat((values["x_head"], values["x_tail"]))
    out, _, _, mv = module(features, torch.arange(2 * pairs), True)
    torch.testing.assert_close(out[2 * pairs :], values["generated"], rtol=1e-5, atol=1e-5)
    prefix = "variant_" if layout == "channels" else ""
    expected = values["ce"] + values[f"{prefix}norm_term"] + values[f"{prefix}dir_term"]
    torch.testing.assert_close(mv, expected, rtol=1e-5, atol=0)
    if layout == "legacy":
        torch.testing.assert_close(mv, values["loss"], rtol=1e-5, atol=0)
    mv.backward()
    assert_gradients(module, values, f"{prefix}grad_")


@pytest.mark.parametrize("case", [0, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_whole_module_equals_the_reference(case: int, channels_last: bool) -> None:
    values = golden("rsg_forward", case)
    strength = float(values["strength"])
    heads = values["head_classes"].tolist()
    module = loaded(values, heads, strength=strength)
    features, labels = values["x"], values["y"]
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last)
    features.requires_grad_()
    generate = bool(values["epoch"] > values["epoch_thresh"])
    out, new_labels, cesc, mv = module(features, labels, generate)
    torch.testing.assert_close(out, values["out"], rtol=1e-5, atol=1e-5)
    assert torch.equal(new_labels, values["y_out"])
    torch.testing.assert_close(cesc, values["loss_cesc"].reshape(()), rtol=1e-5, atol=0)
    torch.testing.assert_close(mv, values["loss_mv"].reshape(()).to(mv), rtol=1e-5, atol=0)
    if generate:
        pairs = trim_pairs(pair_samples(module.is_head[labels], strength))
        repeats = len(pairs.tail) // len(pairs.head)
        assert pairs.head.tolist() * repeats == values["pair_head"].tolist()
        assert pairs.tail.tolist() == values["pair_tail"].tolist()
    ((out * values["cot"]).sum() + 0.1 * cesc + 0.01 * mv).backward()
    assert torch.equal(features.grad, values["cot"][: len(labels)])
    assert_gradients(module, values, "grad_")
