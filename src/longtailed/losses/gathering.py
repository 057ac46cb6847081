"""Gathering: the samples of all processes, for what looks at a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def of_all_processes(tensor: Tensor) -> Tensor:
    """Return the rows [N, ...] of all processes, in the order of their ranks; N is the same.

    With several processes the gradient is for a loss that each of them computes from all rows, the
    same one in each. It goes to the process's own rows, multiplied by the number of processes,
    because their gradients are averaged: so every parameter ends with the gradient that one process
    with all rows would find, whether it acts through the rows or otherwise.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return tensor
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        processes = torch.distributed.get_world_size()
        gathered = tensor.new_empty((processes * len(tensor), *tensor.shape[1:]))
        torch.distributed.all_gather_into_tensor(gathered, tensor.contiguous())
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        processes = torch.distributed.get_world_size()
        return processes * gradient.chunk(processes)[torch.distributed.get_rank()]
