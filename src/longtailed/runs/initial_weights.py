"""Weights that a network starts from: an earlier run's, or a file of another program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from longtailed.data.sources.names import quoted
from longtailed.methods import method_class
from longtailed.nn import Network
from longtailed.nn.weights import Statistics, find_weights
from longtailed.runs.directory import read_recipe
from longtailed.training.checkpoint import read_json

OWN_HEAD = "network.head."
TIMM = "model."  # before all names of a timm backbone, and in no file of another program


@dataclass(frozen=True)
class InitialWeights:
    """What was taken over.

    Args:
        backbone: the number of the backbone's tensors.
        head: whether the head came along.
        note: what was taken from where, and what was left out, as text.
        statistics: mean and standard deviation of the images that the weights are used to; None
            if nothing says.
    """

    backbone: int
    head: bool
    note: str
    statistics: Statistics | None


def load_initial_weights(
    path: Path, network: Network, class_names: Sequence[str] | None = None
) -> InitialWeights:
    """Load a network's backbone from a run's directory or a file; return what was taken over.

    See `find_weights` for the files that can be read. Every tensor of the backbone must be there
    and fit. The head comes along from a run that trained one of the same kind, if it knows all
    of `class_names` (in label order): its rows are put in their order. Else it keeps its new
    weights, as it does if `class_names` is None.

    Raises `LongTailedError` that lists the first tensors that are missing, foreign or of another
    shape.
    """
    home = path if path.is_dir() else path.parent
    state = network.backbone.state_dict()
    own = {name.removeprefix(TIMM): name for name in state}
    file = path / "model.safetensors" if path.is_dir() else path
    found = find_weights(file, {name: state[own[name]] for name in own}, used=OWN_HEAD)
    tensors = {own[name]: tensor for name, tensor in found.tensors.items()}
    network.backbone.load_state_dict(tensors, strict=False)  # counters of batch norms may lack
    held = _manifest(home, file)
    head, said = _load_head(found.others, network, home, held, class_names)
    statistics = found.statistics
    if "mean" in held:
        statistics = tuple(held["mean"]), tuple(held["std"])
    elif statistics is None and network.backbone.data_config is not None:
        statistics = network.backbone.data_config.mean, network.backbone.data_config.std
    return InitialWeights(len(tensors), head, f"{found.note}; {said}", statistics)


def _manifest(home: Path, file: Path) -> dict[str, Any]:
    """Return the manifest of the run that a file of weights belongs to; empty if there is none."""
    path = home / "manifest.json"
    return read_json(path) if file.suffix == ".safetensors" and path.exists() else {}


def _saw_labels(home: Path) -> bool:
    """Return whether a run has trained a head."""
    stages = read_recipe(home).stages
    return any(stage.epochs and not method_class(stage.method).label_free for stage in stages)


def _load_head(
    others: dict[str, Tensor],
    network: Network,
    home: Path,
    manifest: dict[str, Any],
    class_names: Sequence[str] | None,
) -> tuple[bool, str]:
    """Load a run's head if it fits, by name; return whether it does, and a sentence about it."""
    given = {k.removeprefix(OWN_HEAD): t for k, t in others.items() if k.startswith(OWN_HEAD)}
    new = "the head keeps its new weights"
    if not given or class_names is None:
        return False, new
    if not manifest:
        return False, f"{new}, because nothing beside the file names the classes of the one in it"
    if not _saw_labels(home):
        return False, f"{new}, because the run trained none"
    own, theirs = network.head.state_dict(), manifest["class_names"]
    if own.keys() != given.keys() or own["weight"].shape[1:] != given["weight"].shape[1:]:
        return False, f"{new}, because the run's is of another kind"
    unknown = [name for name in class_names if name not in theirs]
    if unknown:
        return False, f"{new}, because the run does not know the classes {quoted(unknown)}"
    rows = [theirs.index(name) for name in class_names]
    network.head.load_state_dict({name: tensor[rows] for name, tensor in given.items()})
    if rows == list(range(len(theirs))):
        return True, "the head came along"
    if len(rows) < len(theirs):
        return True, f"{len(rows)} of the head's {len(theirs)} classes came along, by name"
    return True, "the head came along, its classes put in this run's order by name"
