"""The least time that a training step can take on a device: its arithmetic and its memory traffic.

Arithmetic: the floating-point operations of forward and backward over the fastest matrix product
measured on this device. Traffic: every output of a convolution written once and read once, forward
and backward (four passes; whatever else could stay in caches), over the measured speed of a copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from longtailed.profiling import synchronize

LEAST_PASSES = 4
REPEATS = 5


@dataclass(frozen=True)
class Floor:
    """What a step needs (operations, bytes) and what the device can do (each per second)."""

    operations: float
    traffic: float
    operations_per_second: float
    bytes_per_second: float

    @property
    def seconds(self) -> float:
        """The floor of one step: the slower of arithmetic and traffic."""
        arithmetic = self.operations / self.operations_per_second
        return max(arithmetic, self.traffic / self.bytes_per_second)


def step_floor(network: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> Floor:
    """Return the floor of a plain step: `images` [N, 3, H, W] through `network` and back."""
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
    device = images.device
    return Floor(
        operations=float(counter.get_total_flops()),
        traffic=float(LEAST_PASSES * written * size),
        operations_per_second=matrix_product_speed(device, dtype),
        bytes_per_second=copy_speed(device),
    )


def matrix_product_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 1536
    one = torch.randn(side, side, device=device, dtype=dtype)
    out = torch.empty_like(one)
    return 2 * side**3 / _best_seconds(lambda: torch.mm(one, one, out=out), device)


def copy_speed(device: torch.device) -> float:
    """Return the bytes per second, read and written, of a copy that no cache can hold."""
    size = 2**30 if device.type == "cuda" else 2**27
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _best_seconds(lambda: target.copy_(source), device)


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    for _ in range(REPEATS + 1):  # the first one warms up and is never the best
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best
