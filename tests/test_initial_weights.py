"""Initial weights: every backbone tensor accounted for, whatever program wrote the file."""

from __future__ import annotations

import pytest
import torch

from longtailed.checkpoint import save_weights
from longtailed.errors import LongTailedError
from longtailed.initial_weights import load_initial_weights
from longtailed.methods import build_method
from longtailed.nn import build_network


def network_of(name: str = "resnet8", classes: int = 4, head: str = "linear", seed: int = 0):
    torch.manual_seed(seed)
    options = {"width": 0.5} if name == "resnet8" else {}
    return build_network(name, classes, head=head, **options)


@pytest.fixture(autouse=True)
def random_state():
    with torch.random.fork_rng(devices=[]):
        yield


def same(one, other) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize(
    ("prefix", "fc"),
    [("", "fc."), ("module.", "linear."), ("module.encoder_q.", "fc.0."), ("backbone.", "fc.")],
)
def test_files_of_other_programs_are_unwrapped(tmp_path, prefix, fc):
    source, target = network_of(seed=1), network_of()
    state = {prefix + name: tensor for name, tensor in source.backbone.state_dict().items()}
    rest = prefix.replace("backbone.", "")
    state[f"{rest}{fc}weight"] = torch.zeros(4, 32)
    if "encoder_q" in prefix:
        state |= {name.replace("_q", "_k"): tensor + 1 for name, tensor in state.items()}
        state["module.queue"] = torch.zeros(2, 2)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "moco_ckpt.pth.tar")
    taken = load_initial_weights(tmp_path / "moco_ckpt.pth.tar", target)
    assert same(source.backbone, target.backbone)
    assert (taken.backbone, taken.head) == (len(source.backbone.state_dict()), False)


def test_torchvisions_names_fit_a_timm_backbone(tmp_path):
    source, target = network_of("resnet18", seed=1), network_of("resnet18")
    names = source.backbone.state_dict().items()
    bare = {name.removeprefix("model."): tensor for name, tensor in names}
    torch.save(bare | {"fc.weight": torch.zeros(4, 512)}, tmp_path / "resnet18.pth")
    load_initial_weights(tmp_path / "resnet18.pth", target)
    assert same(source.backbone, target.backbone)


@pytest.mark.parametrize(("classes", "head", "fits"), [
    (4, "linear", True), (5, "linear", False), (4, "cosine", False),
])  # fmt: skip
def test_our_own_files_bring_the_head_if_it_fits(tmp_path, classes, head, fits):
    source, target = network_of(seed=1), network_of(classes=classes, head=head)
    method = build_method("lws", source, [4] * 4)
    save_weights(tmp_path / "model.safetensors", method, method.saved_prefixes)
    before = target.head.weight.detach().clone()
    assert load_initial_weights(tmp_path, target).head == fits
    assert same(source.backbone, target.backbone)
    assert torch.equal(target.head.weight, before) != fits


def changed(change: str) -> dict[str, torch.Tensor]:
    state = dict(network_of().backbone.state_dict())
    names = list(state)
    if change == "prefix":
        return {f"encoder.{name}": tensor for name, tensor in state.items()}
    if change == "missing":
        return {name: state[name] for name in names[5:]}
    if change == "foreign":
        return {**state, "layer4.weight": torch.zeros(1)}
    return {**state, names[0]: torch.zeros(1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("prefix", r"conv1\.weight is missing; .* is missing; .* is missing; and \d+ more"),
        ("missing", r"conv1\.weight is missing; .*; and 2 more"),
        ("foreign", r"layer4\.weight is not part of the backbone\.$"),
        ("shape", r"conv1\.weight has shape \[1\] instead of"),
    ],
)
def test_a_partial_load_is_refused_and_changes_nothing(tmp_path, change, message):
    torch.save(changed(change), tmp_path / "weights.pt")
    target = network_of(seed=1)
    with pytest.raises(LongTailedError, match=f"does not fit the model: .*{message}") as caught:
        load_initial_weights(tmp_path / "weights.pt", target)
    assert "\n" not in str(caught.value)
    assert same(target, network_of(seed=1))


def test_files_that_hold_no_weights_are_refused(tmp_path):
    with pytest.raises(LongTailedError, match="does not exist"):
        load_initial_weights(tmp_path / "none.pth", network_of())
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(LongTailedError, match="holds no weights"):
        load_initial_weights(tmp_path / "empty.pth", network_of())
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(LongTailedError, match="can be read safely"):
        load_initial_weights(tmp_path / "text.pth", network_of())
