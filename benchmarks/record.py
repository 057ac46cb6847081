"""Writes one benchmark's figures with the hardware, versions and commit that they belong to."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from longtailed.engine import processor_name

RESULTS = Path(__file__).parent / "results"


def commit() -> str:
    """Return the commit that was measured, marked if the tree differed from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
        dirty = subprocess.check_output([*git, "status", "--porcelain", "src"], text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if dirty else "")


def record(name: str, command: str, figures: dict[str, Any]) -> Path:
    """Write results/<name>.json and print it; return its path."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    value = {
        "benchmark": name,
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "hardware": {"cpu": processor_name(), "cores": os.cpu_count(), "gpu": device},
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{n: importlib.metadata.version(n) for n in ("torch", "torchvision", "timm", "numpy")},
        },
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(value, indent=2) + "\n")
    print(json.dumps(value, indent=2))
    return path
