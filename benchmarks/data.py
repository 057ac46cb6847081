"""Opening data: seconds and memory for a parquet folder, a long list, and a whole CIFAR run.

    python benchmarks/data.py path/to/cifar10_parquet

Each case runs in a process of its own; memory is that process's peak resident size. The list is
made up: 437,513 lines in 8,142 classes, the size of iNaturalist 2018.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import record
from torch import Tensor

MIB = 1024.0


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def open_source(source: str) -> dict[str, float]:
    """Open a source in this process; return seconds and memory beyond what was there before."""
    from longtailed.data import load_imageset

    before, started = peak_mib(), time.perf_counter()
    imageset = load_imageset(source)
    seconds, growth = time.perf_counter() - started, peak_mib() - before
    images = imageset.images
    pixels = images.nbytes / MIB**2 if isinstance(images, Tensor) else 0.0
    return {
        "images": len(imageset),
        "classes": imageset.num_classes,
        "seconds": round(seconds, 2),
        "growth_mib": round(growth),
        "of_which_pixels_mib": round(pixels),
    }


def train_once(source: str) -> dict[str, float]:
    """Train one epoch on a small subset of a source; return the peak of the whole process."""
    from longtailed import train

    settings = {"epochs": 1, "max_count": 500, "imbalance": 10}
    with tempfile.TemporaryDirectory() as directory:
        train(data=source, overrides=settings, out=Path(directory) / "run", progress=False)
    return {"peak_mib": round(peak_mib())}


def long_list(path: Path) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(437_513) % 8_142)
    lines = (f"train_val2018/Plantae/{c}/{i:032x}.jpg {c}\n" for i, c in enumerate(labels))
    path.write_text("".join(lines))


def in_a_process(case: str, source: str) -> dict[str, float]:
    command = [sys.executable, __file__, source, "--case", case]
    return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="A parquet folder with the layout of CIFAR-10.")
    parser.add_argument("--case", choices=["open", "train"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        case = {"open": open_source, "train": train_once}[options.case]
        print(json.dumps(case(options.source)))
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "list_train.txt"
        long_list(path)
        figures = {
            "parquet folder": in_a_process("open", options.source),
            "list file": in_a_process("open", str(path)),
            "a run on it": in_a_process("train", options.source),
        }
    record("data", f"python benchmarks/data.py {Path(options.source).name}", figures)


if __name__ == "__main__":
    main()
