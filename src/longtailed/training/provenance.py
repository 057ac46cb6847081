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
from lightning_fabric import Fabric

from longtailed.training.engine import precision_of

PACKAGES = ("longtailed", "torchvision", "timm", "numpy")


def run_provenance(fabric: Fabric) -> dict[str, Any]:
    """Return the hardware and versions that a run's figures belong to, as its manifest says."""
    return {
        "hardware": _gpu(fabric.device) or f"{_processor()}, {os.cpu_count()} cores",
        "precision": precision_of(fabric),
        "processes": fabric.world_size,
        "versions": _versions(),
    }


def benchmark_provenance(device: torch.device) -> dict[str, Any]:
    """Return what must stand beside a measured figure for it to mean anything."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "hardware": {"cpu": _processor(), "cores": os.cpu_count(), "gpu": _gpu(device)},
        "device": device.type,
        "threads": torch.get_num_threads(),
        "versions": _versions(),
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


def _versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    # torch's own word names its build (+cu130, +cpu), which the package's version does not.
    return {"python": platform.python_version(), "torch": torch.__version__, **versions}


def _gpu(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _processor() -> str:
    """Return the processor's name as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
