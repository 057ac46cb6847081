"""Counting what a piece of work asks of a device, and waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.operations += int(not func.is_view)
        return func(*args, **(kwargs or {}))


def count_operations(work: Callable[[], object]) -> int:
    """Return how many operations (views aside) one call of `work` performs."""
    with _Counter() as counter:  # type: ignore[no-untyped-call]
        work()
    return int(counter.operations)


def count_launches(work: Callable[[], object], device: torch.device, calls: int = 5) -> float:
    """Return how often one call of `work` gives the GPU something to do (profiler)."""
    from torch.profiler import ProfilerActivity, profile

    launching = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMem")
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(calls):
            work()
        synchronize(device)
    events = profiler.key_averages()
    return float(sum(event.count for event in events if event.key.startswith(launching))) / calls
