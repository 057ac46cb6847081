"""Weights and training state on disk; a file is either the old one or the new one, never half."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from longtailed.errors import LongTailedError
from longtailed.report.strict_json import to_json


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it to `path`.

    Raises `LongTailedError` if it cannot be written (a full disk); a previous file stays whole.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        temporary.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        kept = " the previous one is kept" if path.exists() else " nothing was kept"
        raise LongTailedError(f"cannot write {path}: {reason};{kept}.") from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, atomically."""
    text = to_json(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file; one that cannot be read is one sentence."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LongTailedError(f"{path} cannot be read: {error.strerror}.") from None


def save_training_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write everything that a run needs to go on exactly where it stands."""
    write_atomically(path, lambda file: torch.save(dict(state), file))


def load_training_state(path: Path) -> dict[str, Any]:
    """Return a training state on the CPU, read without running any code from the file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise LongTailedError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); "
            "move it away to start again."
        ) from None
    if not isinstance(state, dict):
        raise LongTailedError(f"{path} is not a training state of longtailed.")
    return state


def save_weights(path: Path, module: nn.Module, prefixes: tuple[str, ...] = ("",)) -> None:
    """Write a module's tensors whose names begin with one of `prefixes` as safetensors."""
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in module.state_dict().items()
        if name.startswith(prefixes)
    }
    data = safetensors.torch.save(tensors, metadata={"format": "pt"})
    write_atomically(path, lambda file: file.write(data))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; a missing or broken file is one sentence."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise LongTailedError(f"{path} does not exist.") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise LongTailedError(f"{path} is not a readable safetensors file: {error}.") from None


def load_weights(path: Path, module: nn.Module, prefixes: tuple[str, ...] = ("",)) -> None:
    """Load what `save_weights` wrote; every tensor must be there and fit, none may be left over."""
    tensors = read_weights(path)
    own = {name: t for name, t in module.state_dict().items() if name.startswith(prefixes)}
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not part of the model" for name in tensors if name not in own]
    problems += [
        f"{name} has shape {list(tensors[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" * (len(problems) > 3))
        raise LongTailedError(f"{path} does not fit the model: {shown}.")
    module.load_state_dict(tensors, strict=False)


def check_finite(module: nn.Module, what: str) -> None:
    """Raise `LongTailedError` naming the first of a module's tensors that has NaN or infinities."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise LongTailedError(
                f"{what} has {bad} {'value' if bad == 1 else 'values'} in {name} that "
                f"{'is' if bad == 1 else 'are'} NaN or infinite, so whatever it predicts means "
                "nothing; take other weights, or train again with a lower learning rate."
            )
