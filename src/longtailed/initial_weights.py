"""Weights that a network starts from: an earlier run's, or a file of another program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtailed.checkpoint import read_weights
from longtailed.errors import LongTailedError
from longtailed.methods import method_class
from longtailed.nn import Network
from longtailed.rundir import read_recipe

SHOWN = 3  # names of tensors that a message lists
WRAPPERS = ("module.", "_orig_mod.")  # what several processes and compilation put before names
QUERY_ENCODER = "encoder_q."  # MoCo's: what pre-training was for; the rest of its file is not used
OWN_BACKBONE, OWN_HEAD = "network.backbone.", "network.head."
TIMM = "model."  # before all names of a timm backbone, and in no file of another program
BACKBONES = (OWN_BACKBONE, "backbone.", "")
HEADS = ("head.", "fc.", "linear.", "classifier.")  # names of classifiers in bare files


@dataclass(frozen=True)
class InitialWeights:
    """What was taken over: the number of the backbone's tensors, and whether the head's, too."""

    backbone: int
    head: bool


def load_initial_weights(path: Path, network: Network) -> InitialWeights:
    """Load a network's backbone from a run's directory or a file; return what was taken over.

    Files are safetensors, or torch's (read without running code from them), whose tensors may lie
    under "state_dict" or "model". Before their names may stand `module.`, `encoder_q.` (MoCo's
    query encoder, whose projection `fc` is left out) and `network.backbone.` or `backbone.`.
    Every tensor of the backbone must be there and fit, and none may be left over. The head comes
    along if the file has one of ours of the same kind and size, and it is not of a run without
    labels, which trained none; else it keeps its new weights.

    Raises `LongTailedError` that lists the first tensors that are missing, foreign or of another
    shape.
    """
    directory, path = path, path / "model.safetensors" if path.is_dir() else path
    tensors = _unwrapped(_read(path))
    own = {name.removeprefix(TIMM): t for name, t in network.backbone.state_dict().items()}
    prefix = next((p for p in BACKBONES if any(name.startswith(p) for name in tensors)), "")
    found = {
        name.removeprefix(prefix).removeprefix(TIMM): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and (prefix or not name.startswith(HEADS))
    }
    problems = [f"{name} is missing" for name in own if name not in found]
    problems += [f"{name} is not part of the backbone" for name in found if name not in own]
    problems += [
        f"{name} has shape {list(found[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise LongTailedError(
            f"{path} does not fit the model: {'; '.join(problems[:SHOWN])}{more}."
        )
    names = network.backbone.state_dict()
    network.backbone.load_state_dict({name: found[name.removeprefix(TIMM)] for name in names})
    return InitialWeights(len(found), _saw_labels(directory) and _load_head(tensors, network))


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name."""
    if path.suffix == ".safetensors" or not path.exists():
        return read_weights(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise LongTailedError(
            f"{path} is not a file of weights that can be read safely ({type(error).__name__})."
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    named = content.items() if isinstance(content, dict) else ()
    tensors = {str(name): tensor for name, tensor in named if isinstance(tensor, Tensor)}
    if not tensors:
        raise LongTailedError(f"{path} holds no weights.")
    return tensors


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without what wrappers put before their names."""
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    if any(name.startswith(QUERY_ENCODER) for name in tensors):
        tensors = {
            name.removeprefix(QUERY_ENCODER): tensor
            for name, tensor in tensors.items()
            if name.startswith(QUERY_ENCODER)
        }
    return tensors


def _saw_labels(directory: Path) -> bool:
    """Return whether a run has trained a head; true of what is no run's directory."""
    if not (directory / "recipe.json").exists():
        return True
    stages = read_recipe(directory).stages
    return any(stage.epochs and not method_class(stage.method).label_free for stage in stages)


def _load_head(tensors: dict[str, Tensor], network: Network) -> bool:
    """Load the head if the file has one of the same kind and size; return whether it does."""
    given = {
        name.removeprefix(OWN_HEAD): tensor
        for name, tensor in tensors.items()
        if name.startswith(OWN_HEAD)
    }
    own = network.head.state_dict()
    if {name: t.shape for name, t in given.items()} != {name: t.shape for name, t in own.items()}:
        return False
    network.head.load_state_dict(given)
    return True
