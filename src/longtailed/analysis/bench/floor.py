"""The least time that a training step can take on a device: its arithmetic and its memory traffic.

Arithmetic: the floating-point operations of forward and backward over the speed of a large matrix
product on this device. Traffic: every output of a convolution written once and read once, forward
and backward (four passes; whatever else could stay in caches), over the speed of a large copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

LEAST_PASSES = 4


@dataclass(frozen=True)
class Work:
    """What a step needs at least: floating-point operations, and bytes to and from memory."""

    operations: float
    traffic: float

    def seconds(self, operations_per_second: float, bytes_per_second: float) -> float:
        """Return the floor of one step: the slower of arithmetic and traffic."""
        return max(self.operations / operations_per_second, self.traffic / bytes_per_second)

    def describe(self, operations_per_second: float, bytes_per_second: float) -> dict[str, float]:
        """Return the floor and what it follows from, rounded for a results file."""
        floor = self.seconds(operations_per_second, bytes_per_second)
        return {
            "ms_per_step": round(1e3 * floor, 4),
            "gflop_per_step": round(self.operations / 1e9, 3),
            "least_traffic_mb_per_step": round(self.traffic / 1e6, 3),
            "measured_tflop_per_second": round(operations_per_second / 1e12, 4),
            "measured_gb_per_second": round(bytes_per_second / 1e9, 2),
        }


def least_work(network: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> Work:
    """Return what a plain step needs: `images` [N, 3, H, W] in `dtype` through it and back."""
    written = 0

    def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal written
        written += output.numel()

    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_hook(note) for module in convolutions]
    counter = FlopCounterMode(display=False)
    with counter:
        torch.autograd.backward(nn.functional.cross_entropy(network(images), labels))
    for hook in hooks:
        hook.remove()
    network.zero_grad(set_to_none=True)
    size = torch.empty(0, dtype=dtype).element_size()
    return Work(float(counter.get_total_flops()), float(LEAST_PASSES * written * size))


def matrix_product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """Return a large matrix product to be timed, and its floating-point operations."""
    side = 8192 if device.type == "cuda" else 1536
    one = torch.randn(side, side, device=device, dtype=dtype)
    out = torch.empty_like(one)
    return lambda: torch.mm(one, one, out=out), float(2 * side**3)


def large_copy(device: torch.device) -> tuple[Callable[[], object], float]:
    """Return a copy that no cache can hold, to be timed, and the bytes that it reads and writes."""
    size = 2**30 if device.type == "cuda" else 2**27
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), float(2 * size)
