"""The generator against explicit loops, its edge cases, sizes and initial values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from longtailed.errors import LongTailedError
from longtailed.methods import RareSampleGenerator
from longtailed.methods.rare_sample_generator import IGNORED
from longtailed.methods.rare_sample_pairs import most_pairs, pair_samples, trim_pairs


def small(layout: str = "channels", seed: int = 0, **options: Any) -> RareSampleGenerator:
    torch.manual_seed(seed)
    module = RareSampleGenerator(4, 3, [0], 2, 5, layout=layout, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def batch(labels: list[int], seed: int = 1, side: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(len(labels), 3, side, side, generator=generator, dtype=torch.float64)
    return maps, torch.tensor(labels)


def chunked_pairs(is_head: list[bool], strength: float) -> list[tuple[int, int]]:
    """The authors' rule: the smaller side is repeated for chunks of the larger one."""
    heads = [i for i, head in enumerate(is_head) if head]
    tails = [i for i, head in enumerate(is_head) if not head]
    if not heads or not tails:
        return []
    fewer, more = min(len(heads), len(tails)), max(len(heads), len(tails))
    pairs = []
    for chunk in range(max(1, int(more * strength / fewer))):
        for p in range(fewer):
            if len(heads) >= len(tails):
                pairs.append((heads[(chunk * fewer + p) % len(heads)], tails[p]))
            else:
                pairs.append((heads[p], tails[(chunk * fewer + p) % len(tails)]))
    return pairs


@pytest.mark.parametrize("strength", [0.3, 0.5, 1.0, 1.7, 3.0])
def test_pairs_follow_the_chunks_for_every_split_of_a_batch(strength: float) -> None:
    generator = np.random.default_rng(0)
    for size in (1, 2, 5, 8, 16):
        for heads in range(size + 1):
            is_head = generator.permutation(np.arange(size) < heads)
            pairs = pair_samples(torch.from_numpy(is_head), strength)
            assert len(pairs.head) == most_pairs(size, strength) >= int(pairs.number)
            meant = trim_pairs(pairs)
            expected = chunked_pairs(is_head.tolist(), strength)
            head, tail = meant.head.tolist(), meant.tail.tolist()
            assert [(head[p % len(head)], t) for p, t in enumerate(tail)] == expected
            assert len(set(head)) == len(head)


def critic(module: RareSampleGenerator, u: Tensor, v: Tensor) -> Tensor:
    hidden = module.contrast.conv1(torch.cat((u, v))[None]).relu()
    return module.contrast.fc(module.contrast.conv2(hidden).mean((2, 3)))


def loop(module: RareSampleGenerator, x: Tensor, y: Tensor, generate: bool) -> Any:
    """The four outputs by explicit loops over samples, centres, pairs and pixels."""
    number, channels, height, width = x.shape
    x = x.detach()
    gammas, centre_loss = [], torch.zeros((), dtype=x.dtype)
    for i in range(number):
        scores = module.gate_bias[y[i]].clone()
        for k in range(len(scores)):
            scores[k] = scores[k] + (module.gate_weight[y[i], :, k] * x[i].mean((1, 2))).sum()
        gammas.append(torch.softmax(scores, 0))
        for k in range(len(scores)):
            difference = x[i] - module.centers[y[i], k][:, None, None]
            centre_loss = centre_loss + gammas[i][k] * difference.square().sum() / number

    if not generate:
        terms = []
        for j in range(number // 2):
            same = (y[j] == y[j + number // 2]).long()[None]
            terms.append(functional.cross_entropy(critic(module, x[j], x[j + number // 2]), same))
        return x, y, centre_loss + sum(terms) / len(terms), 0
    rows, labels, mv = list(x), list(y), torch.zeros((), dtype=x.dtype)
    pairs = chunked_pairs(module.is_head[y].tolist(), module.strength)
    nearest = [module.centers[y[i], int(gammas[i].argmax())].detach() for i in range(number)]
    for h, t in pairs:
        v = x[h] - nearest[h][:, None, None]
        u = module.transform(v[None])[0]
        r = x[t] - nearest[t][:, None, None]
        term = functional.cross_entropy(critic(module, x[h], u), torch.tensor([0]))
        for row in range(height):
            for column in range(width):
                a, b, c = (z[:, row, column] for z in (u, v, r))
                if module.layout == "legacy":
                    first = (row * width + column) * channels
                    a, b, c = (z.reshape(-1)[first : first + channels] for z in (u, v, r))
                cosine = (a / a.norm()) @ (c / c.norm())
                largest = 1 if module.layout == "channels" else channels
                term = term + (a.norm() - b.norm()).abs() + largest - cosine
        mv = mv + term / len(pairs)
        rows.append(x[t] + u)
        labels.append(y[t])
    return torch.stack(rows), torch.stack(labels), centre_loss, mv


BATCHES = {
    "more heads": [0, 0, 1, 0, 0, 2],
    "more tails": [1, 2, 0, 3, 1, 1],
    "equal": [0, 1, 0, 2],
    "one tail": [0, 0, 0, 0, 3],
}


@pytest.mark.parametrize("layout", ["channels", "legacy"])
@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("generate", [False, True])
def test_values_and_gradients_equal_explicit_loops(
    layout: str, labels: list[int], generate: bool
) -> None:
    module = small(layout)
    x, y = batch(labels)
    outcomes = []
    for form in (module, lambda *args: loop(module, *args)):
        out, new_labels, cesc, mv = form(x, y, generate)
        module.zero_grad()
        total = out.sin().sum() + cesc + 0.3 * mv
        total.backward()
        gradients = {n: p.grad for n, p in module.named_parameters() if "contrast" not in n}
        if not generate:
            gradients = {n: p.grad for n, p in module.named_parameters()}
        outcomes.append((out, new_labels, cesc, torch.as_tensor(mv).to(x), gradients))
    torch.testing.assert_close(*outcomes)


def test_gradients_are_those_of_finite_differences() -> None:
    module = small(freeze_contrastive=False)
    x, y = batch([0, 1, 0, 2], side=3)
    names = [name for name, _ in module.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in module.parameters()]

    def cesc(*parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, state, (x, y, False))[2]

    def mv(*parameters: Tensor) -> Any:
        # Centres and gates are meant to be constants of MV, so only the others vary here.
        state = dict(module.named_parameters()) | dict(zip(names[3:], parameters, strict=True))
        out, _, _, loss = torch.func.functional_call(module, state, (x, y, True))
        return out, loss

    assert torch.autograd.gradcheck(cesc, values, fast_mode=True)
    assert torch.autograd.gradcheck(mv, values[3:], fast_mode=True)


def test_a_frozen_critic_gets_no_gradient_and_a_free_one_does() -> None:
    x, y = batch([0, 1, 0, 2])
    for freeze in (True, False):
        module = small(freeze_contrastive=freeze)
        module(x, y, True)[3].backward()
        assert all((p.grad is None) == freeze for p in module.contrast.parameters())
        assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [1, 2, 3, 1], [0], [2]])
@pytest.mark.parametrize("padded", [False, True])
def test_without_heads_or_tails_nothing_is_added(labels: list[int], padded: bool) -> None:
    module = small()
    x, y = batch(labels)
    x.requires_grad_()
    out, new_labels, cesc, mv = module(x, y, True, padded=padded)
    assert float(mv.detach()) == 0
    assert torch.equal(out[: len(x)], x)
    assert torch.equal(new_labels[: len(x)], y)
    if padded:
        assert (new_labels[len(x) :] == IGNORED).all()
        assert out[len(x) :].detach().flatten(1).tolist() == x[: len(x) - 1].flatten(1).tolist()
    else:
        assert out is x
    (out[: len(x)].sum() + cesc + mv).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_padding_changes_nothing_but_the_number_of_rows(labels: list[int], strength: float) -> None:
    module = small(strength=strength)
    x, y = batch(labels)
    out, new_labels, cesc, mv = module(x, y, True)
    padded_out, padded_labels, padded_cesc, padded_mv = module(x, y, True, padded=True)
    rows = len(out)
    assert len(padded_out) == len(x) + most_pairs(len(x), strength)
    torch.testing.assert_close((out, cesc, mv), (padded_out[:rows], padded_cesc, padded_mv))
    assert torch.equal(padded_labels[:rows], new_labels)
    assert (padded_labels[rows:] == IGNORED).all()
    # Each filling row is one of the enlarged batch, and they are spread over it.
    filling = padded_out[rows:].flatten(1).detach()
    same = torch.cdist(filling, out.flatten(1).detach()) < 1e-9
    assert same.any(dim=1).all()
    if len(filling) == rows:
        assert same.diagonal().all()


def test_an_odd_batch_leaves_its_last_sample_out_of_the_contrastive_pairs() -> None:
    module = small()
    x, y = batch([0, 1, 2, 1, 0])
    full, even = module(x, y, False), module(x[:4], y[:4], False)
    contrast = full[2] - module(x, y, True)[2]
    torch.testing.assert_close(contrast, even[2] - module(x[:4], y[:4], True)[2])


@pytest.mark.parametrize("layout", ["channels", "legacy"])
def test_channels_last_maps_give_the_same(layout: str) -> None:
    module = small(layout)
    x, y = batch([0, 1, 0, 2, 3])
    for generate in (False, True):
        expected = module(x, y, generate)
        found = module(x.contiguous(memory_format=torch.channels_last), y, generate)
        torch.testing.assert_close(found, expected)
        assert found[0].is_contiguous(memory_format=torch.channels_last)


def test_the_mean_over_pixels_divides_the_sums() -> None:
    x, y = batch([0, 1, 0, 2])
    total, mean = small(), small(reduction="mean")
    torch.testing.assert_close(mean(x, y, True)[2] * 16, total(x, y, True)[2])
    ce = functional.cross_entropy
    logits = total.contrast.fc.bias  # MV is CE plus a sum over 16 pixels
    assert ce(logits[None], torch.tensor([0])) > 0
    sums = [module(x, y, True)[3] for module in (total, mean)]
    with torch.no_grad():
        for module in (total, mean):
            module.contrast.fc.weight.zero_()
            module.contrast.fc.bias.copy_(torch.tensor([50.0, -50.0]))  # CE is then 0
    sums = [module(x, y, True)[3] for module in (total, mean)]
    torch.testing.assert_close(sums[1] * 16, sums[0])


@pytest.mark.parametrize(
    ("classes", "channels", "parameters"), [(10, 32, 626_232), (100, 32, 713_982),
    (10, 312, 1_720_752), (100, 312, 2_564_502), (10, 512, 3_366_552), (100, 512, 4_750_302)],
)  # fmt: skip
def test_parameter_counts(classes: int, channels: int, parameters: int) -> None:
    module = RareSampleGenerator(classes, channels, [0])
    assert sum(p.numel() for p in module.parameters()) == parameters


def test_initial_values() -> None:
    torch.manual_seed(0)
    module = RareSampleGenerator(10, 32, [0, 1])
    assert bool((module.gate_bias == 1).all() and (module.centers == 0).all())
    expected = {"gate_weight": 1, "contrast.fc.weight": 1}
    expected |= {"contrast.conv1.weight": math.sqrt(2 / 64)}
    expected |= {"contrast.conv2.weight": math.sqrt(2 / (256 * 9))}
    expected |= {"transform.weight": math.sqrt(2 / (32 * 9))}
    for name, parameter in module.named_parameters():
        if name in expected:
            assert float(parameter.detach().std()) == pytest.approx(expected[name], rel=0.1), name
        elif name.endswith(".bias"):
            assert not parameter.any()
    generators = [torch.Generator().manual_seed(s) for s in (3, 3)]
    states = []
    for generator in generators:
        module.reset_parameters(generator)
        states.append([p.clone() for p in module.parameters()])
    assert all(map(torch.equal, *states))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_classes": []}, "head classes are none of the 4"),
        ({"head_classes": range(4)}, "head classes are all of the 4"),
        ({"head_classes": [4]}, "head classes run from 4 to 4"),
        ({"head_classes": [-1, 2]}, "head classes run from -1 to 2"),
        ({"num_centers": 0}, "must be above 0"),
        ({"strength": 0.0}, "must be above 0"),
    ],
)
def test_impossible_settings_are_one_sentence(options: dict[str, Any], message: str) -> None:
    settings = {"num_classes": 4, "channels": 3, "head_classes": [0], **options}
    with pytest.raises(LongTailedError, match=message) as caught:
        RareSampleGenerator(**settings)
    assert "\n" not in str(caught.value)
