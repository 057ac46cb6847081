"""Writes one benchmark's figures with the hardware, versions and commit that they belong to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from longtailed.training.provenance import benchmark_provenance

RESULTS = Path(__file__).parent / "results"


def record(name: str, command: str, figures: dict[str, Any]) -> Path:
    """Write results/<name>.json and print it; return its path."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    value = {
        "benchmark": name,
        "command": command,
        **benchmark_provenance(device),
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(value, indent=2) + "\n")
    print(json.dumps(value, indent=2))
    return path
