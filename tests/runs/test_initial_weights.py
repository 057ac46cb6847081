"""Initial weights: every backbone tensor accounted for, whatever program wrote the file."""

from __future__ import annotations

import shutil

import pytest
import torch

from longtailed.errors import LongTailedError
from longtailed.methods import build_method
from longtailed.nn import build_network
from longtailed.recipes import compose
from longtailed.runs.initial_weights import load_initial_weights
from longtailed.training.checkpoint import save_weights, write_json


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
    [
        ("", "fc."),
        ("module.", "linear."),
        ("module.encoder_q.", "fc.0."),
        ("backbone.", "fc."),
        ("encoder.", "head."),
    ],
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


TRAINED = ("ant", "bee", "moth", "wasp")
SIZES = {"images": 16, "counts": [4] * 4}
MANIFEST = {
    "source": "x", "class_names": TRAINED, "splits": {"train": SIZES, "test": SIZES},
    "imbalance_ratio": 1.0, "network": "resnet8", "parameters": 1,
}  # fmt: skip


def write_run(directory, source, method: str = "lws", **manifest: object) -> None:
    """Write the files of a finished run that `load_initial_weights` reads."""
    recipe = compose("digits", method, "resnet8", imbalance=None)
    write_json(directory / "recipe.json", recipe.model_dump(mode="json"))
    write_json(directory / "manifest.json", {**MANIFEST, **manifest})
    trained = build_method("lws", source, [4] * 4)
    save_weights(directory / "model.safetensors", trained, trained.saved_prefixes)


@pytest.mark.parametrize(
    ("classes", "rows", "note"),
    [
        ("ant bee moth wasp", [0, 1, 2, 3], "the head was loaded, too"),
        ("wasp ant moth bee", [3, 0, 2, 1], "its classes put in this run's order by name"),
        ("wasp bee", [3, 1], "2 of the head's 4 classes were loaded, by name"),
        ("ant bee moth fly", None, "new weights, because the run does not know the classes 'fly'"),
        ("ant bee moth wasp fly", None, "does not know the classes 'fly'"),
    ],
)
@pytest.mark.parametrize("named", ["directory", "file"])
def test_the_head_of_a_run_comes_along_by_name(classes, rows, note, named, tmp_path):
    source, names = network_of(seed=1), classes.split()
    write_run(tmp_path, source, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    target = network_of(classes=len(names))
    before = target.head.weight.detach().clone()
    path = tmp_path if named == "directory" else tmp_path / "model.safetensors"
    taken = load_initial_weights(path, target, names)
    assert same(source.backbone, target.backbone)
    assert note in taken.note
    assert taken.head == (rows is not None)
    expected = before if rows is None else source.head.weight[rows]
    assert torch.equal(target.head.weight, expected)
    if rows is not None:
        assert torch.equal(target.head.bias, source.head.bias[rows])
    assert taken.statistics == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_head_of_another_kind_or_without_names_or_labels_stays_behind(tmp_path):
    source = network_of(seed=1)
    write_run(tmp_path, source)
    cases = [(network_of(head="cosine"), TRAINED, "is of another kind"), (network_of(), None, "")]
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "alone")
    for target, names, note in cases:
        before = target.head.weight.detach().clone()
        taken = load_initial_weights(tmp_path, target, names)
        assert (taken.head, note in taken.note) == (False, True)
        assert torch.equal(target.head.weight, before)
    taken = load_initial_weights(tmp_path / "alone" / "model.safetensors", network_of(), TRAINED)
    assert "nothing beside the file names the classes" in taken.note
    write_run(tmp_path, source, method="rotation")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        taken = load_initial_weights(path, network_of(), TRAINED)
        assert (taken.head, "the run trained none" in taken.note) == (False, True)


def changed(change: str) -> dict[str, torch.Tensor]:
    state = dict(network_of().backbone.state_dict())
    names = list(state)
    if change == "missing":
        return {name: state[name] for name in names[5:]}
    if change == "foreign":
        return {**state, "layer4.weight": torch.zeros(1)}
    return {**state, names[0]: torch.zeros(1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
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
    with pytest.raises(LongTailedError, match="is a text that begins with 'hello'"):
        load_initial_weights(tmp_path / "text.pth", network_of())
