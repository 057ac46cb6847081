"""Where a figure comes from: hardware, versions, commit and date."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from longtailed.training.engine import processor_name


def provenance(device: torch.device) -> dict[str, Any]:
    """Return what must stand beside a measured figure for it to mean anything."""
    versions = ("longtailed", "torchvision", "timm", "numpy")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "hardware": {
            "cpu": processor_name(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        },
        "device": device.type,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: importlib.metadata.version(name) for name in versions},
        },
    }


def commit() -> str | None:
    """Return the commit of the checkout that the package runs from; None outside a checkout.

    It is marked if the package's files differ from it.
    """
    try:
        head, changed = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", ".")
        tracked = _git("ls-files", "__init__.py")
    except (OSError, subprocess.CalledProcessError):
        return None
    if not tracked:  # an installed package inside somebody else's repository
        return None
    return head + ("+changes" if changed else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    output = subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True)
    return str(output).strip()
