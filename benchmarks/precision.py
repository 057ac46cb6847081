"""bfloat16 in channels_last against float32 in NCHW: a plain training step, in alternation.

python benchmarks/precision.py
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from record import record

from longtailed.nn import build_network
from longtailed.training.engine import has_bfloat16

BATCH = 128
CASES = {
    "fp32 NCHW": (torch.float32, torch.contiguous_format),
    "fp32 channels_last": (torch.float32, torch.channels_last),
    "bf16 channels_last": (torch.bfloat16, torch.channels_last),
}


class Loop:
    """A plain training loop in one precision and memory format."""

    def __init__(self, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
        self.dtype = dtype
        self.network = build_network("resnet32", 10).to(memory_format=memory_format).train()
        self.images = torch.randn(BATCH, 3, 32, 32).to(memory_format=memory_format)
        self.labels = torch.arange(BATCH) % 10
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, fused=True)

    def seconds(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
                logits = self.network(self.images)
            torch.nn.functional.cross_entropy(logits.float(), self.labels).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return (time.perf_counter() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    loops = {name: Loop(*case) for name, case in CASES.items()}
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(options.rounds):
        for name, loop in loops.items():
            times[name].append(loop.seconds(options.steps))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    base = medians["fp32 NCHW"]
    figures: dict[str, object] = {"bfloat16 in hardware": has_bfloat16()}
    figures |= {
        name: {"ms_per_step": round(1e3 * value, 1), "times_faster": round(base / value, 2)}
        for name, value in medians.items()
    }
    record("precision", f"python benchmarks/precision.py --rounds {options.rounds}", figures)


if __name__ == "__main__":
    main()
