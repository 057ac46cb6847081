"""MoCo: logits, queue, momentum and gradients as published; random groups for batch-norm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from longtailed.data.streams import Batch
from longtailed.errors import LongTailedError
from longtailed.methods import METHODS, Progress, build_method, moco_logits
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "moco.npz")
CASES = [int(key.removeprefix("K_")) for key in GOLDEN if key.startswith("K_")]
COUNTS = [24, 12, 6, 3]


def of(name: str, case: int) -> torch.Tensor:
    return torch.from_numpy(np.array(GOLDEN[f"{name}_{case}"]))


class Trunk(nn.Module):
    """The encoder's trunk of the reference: tanh of a linear layer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features
        self.trunk = nn.Linear(features, features)

    def forward(self, x):
        return self.trunk(x).tanh()


def reference_method(case: int):
    features = of("im_q", case).shape[-1]
    network = nn.Module()
    network.backbone, network.head = Trunk(features), nn.Linear(features, 4)
    method = METHODS["moco"](
        network,
        COUNTS,
        queue_size=int(of("K", case)),
        momentum=float(of("m", case)),
        temperature=float(of("T", case)),
        embedding_dim=of("q", case).shape[-1],
        key_groups=1,
    )
    if not of("mlp", case):
        method.projection = nn.Linear(features, of("q", case).shape[-1])
        method.key_encoder.head = nn.Linear(features, of("q", case).shape[-1])
    encoders = [("encq", method._query_encoder()), ("enck", method.key_encoder)]
    for prefix, encoder in encoders:
        names = [n for n in GOLDEN if n.startswith(prefix + ".") and n.endswith(f"_{case}")]
        state = {n.removeprefix(prefix + ".").removesuffix(f"_{case}"): n for n in names}
        renamed = {n.replace("trunk.", "backbone.trunk.").replace("fc.", "head."): GOLDEN[v]
                   for n, v in state.items()}  # fmt: skip
        encoder.load_state_dict({n: torch.from_numpy(v) for n, v in renamed.items()})
    method.queue.copy_(of("queue_before", case)[0])
    method.pointer.copy_(of("ptr_before", case)[0])
    return method.train()


@pytest.mark.parametrize("case", CASES)
def test_steps_are_the_published_ones(case):
    method = reference_method(case)
    progress = Progress(1, 3, torch.Generator().manual_seed(0))
    method.follow()  # in the reference the keys' encoder follows before a step, here after it
    trained = list(method._query_encoder().parameters())
    optimizer = torch.optim.SGD(trained, lr=0.05)
    close = {"rtol": 1e-5, "atol": 1e-5}
    for step in range(3):
        torch.testing.assert_close(method.queue, of("queue_before", case)[step], **close)
        key_weights = torch.cat([p.flatten() for p in method.key_encoder.parameters()])
        torch.testing.assert_close(key_weights, of("enck_after", case)[step], **close)
        images = (of("im_q", case)[step], of("im_k", case)[step])
        labels = of("labels", case)[step]
        terms = method({"train": Batch(images, labels, torch.arange(len(labels)))}, progress)
        torch.testing.assert_close(terms["moco"], of("loss", case)[step].float(), **close)
        torch.testing.assert_close(method._keys, of("k", case)[step], **close)
        optimizer.zero_grad()
        terms["moco"].backward()
        last = method.projection[-1] if of("mlp", case) else method.projection
        torch.testing.assert_close(last.weight.grad, of("grad_fc_weight", case)[step], **close)
        optimizer.step()
        with torch.no_grad():
            method.after_step(progress)
        torch.testing.assert_close(method.queue, of("queue_after", case)[step], **close)
        assert method.pointer == of("ptr_after", case)[step]
    weights = torch.cat([p.flatten() for p in trained])
    torch.testing.assert_close(weights, of("encq_flat_after", case), **close)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_published_ones(case):
    for step in range(3):
        logits = moco_logits(
            of("q", case)[step], of("k", case)[step], of("queue_before", case)[step],
            float(of("T", case)),
        )  # fmt: skip
        torch.testing.assert_close(logits, of("logits", case)[step], rtol=1e-5, atol=1e-5)


def test_logits_equal_an_explicit_loop_and_have_right_gradients():
    generator = torch.Generator().manual_seed(0)
    query, key = (
        normalize(torch.randn(3, 5, dtype=torch.float64, generator=generator), dim=1)
        for _ in range(2)
    )
    queue = normalize(torch.randn(5, 4, dtype=torch.float64, generator=generator), dim=0)
    logits = moco_logits(query, key, queue, 0.2)
    for n in range(3):
        keys = [key[n], *queue.T]
        for column, other in enumerate(keys):
            expected = sum(query[n, d] * other[d] for d in range(5)) / 0.2
            assert logits[n, column].item() == pytest.approx(expected.item(), rel=1e-12)
    query.requires_grad_()
    assert torch.autograd.gradcheck(lambda q: moco_logits(q, key, queue, 0.2), (query,))


def test_logits_stay_in_full_precision():
    generator = torch.Generator().manual_seed(0)
    query, key = (normalize(torch.randn(3, 5, generator=generator), dim=1) for _ in range(2))
    queue = normalize(torch.randn(5, 4, generator=generator), dim=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = moco_logits(query, key, queue, 0.2)
    assert torch.equal(logits, moco_logits(query, key, queue, 0.2))


@pytest.mark.parametrize("groups", [5, 7, 12])
def test_groups_that_do_not_divide_the_batch_are_refused(groups, small_network):
    method = build_method("moco", small_network(), COUNTS, queue_size=48, key_groups=groups)
    message = f"12 images .* in {groups} equal groups .* key_groups to one of 1, 2, 3, 4, 6"
    with pytest.raises(LongTailedError, match=message):
        method.check({"train": COUNTS}, 12)
    build_method("moco", small_network(), COUNTS, queue_size=48, key_groups=6).check(
        {"train": COUNTS}, 12
    )


def test_a_queue_that_batches_do_not_fill_is_refused(small_network):
    method = build_method("moco", small_network(), COUNTS, queue_size=50)
    with pytest.raises(LongTailedError, match=r"queue of 50 keys.*batches of 12.*multiple of 12"):
        method.check({"train": COUNTS}, 12)


def test_a_partial_batch_goes_round_the_end_of_the_queue(small_network, splits, fabric):
    method = build_method("moco", small_network(), COUNTS, queue_size=24)
    options = FitOptions(epochs=1, batch_size=12, drop_last=False)  # 12, 12, 12 and 9 images
    fit(method, Job(fabric, splits, options, show_progress=False))
    assert method.pointer.item() == sum(COUNTS) % 24


def test_keys_come_in_the_order_of_their_images(small_network, splits):
    method = build_method("moco", small_network(), COUNTS, queue_size=48).eval()
    images = next(splits.scan("train")).images[0][:10]
    expected = method.key_encoder(images)
    keys = method._encode_keys(images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(keys, expected, rtol=1e-4, atol=1e-5)


def test_keys_are_normalised_in_random_groups(small_network, splits):
    images = next(splits.scan("train")).images[0][:16]
    whole, grouped, again = (
        build_method("moco", small_network(), COUNTS, queue_size=48, key_groups=groups).train()
        for groups in (1, 4, 4)
    )
    state = whole.state_dict()
    keys = []
    for method, seed in ((whole, 0), (whole, 1), (grouped, 0), (again, 1)):
        method.load_state_dict(state)
        keys.append(method._encode_keys(images, torch.Generator().manual_seed(seed)))
    torch.testing.assert_close(keys[0], keys[1], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(keys[0], keys[2], atol=1e-2)
    assert not torch.allclose(keys[2], keys[3], atol=1e-2)


def test_the_key_encoder_starts_from_the_network_and_is_not_trained(small_network, splits, fabric):
    network = small_network()
    method = build_method("moco", network, COUNTS, queue_size=48, momentum=1.0)
    with torch.no_grad():
        network.backbone.conv1.weight.mul_(2)  # by an earlier stage, say
    start = network.backbone.conv1.weight.detach().clone()
    options = FitOptions(epochs=1, batch_size=12, optimizer=Optimizer(lr=0.1))
    fit(method, Job(fabric, splits, options, show_progress=False))
    assert torch.equal(method.key_encoder.backbone.conv1.weight, start)
    assert not torch.equal(network.backbone.conv1.weight, start)
    assert method.pointer == 36
    norms = method.queue.norm(dim=0)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_the_queue_begins_anew_when_it_is_full(small_network):
    method = build_method("moco", small_network(), COUNTS, queue_size=8, embedding_dim=5)
    progress = Progress(1, 3, torch.Generator())
    keys = normalize(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)), dim=2)
    for step in range(3):
        method._keys = keys[step]
        method.after_step(progress)
    assert method.pointer == 4
    assert torch.equal(method.queue.T, torch.cat([keys[2], keys[1]]))
