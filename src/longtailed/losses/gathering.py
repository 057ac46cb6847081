"""Gathering: the samples of all processes, for what looks at a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def of_all_processes(tensor: Tensor) -> Tensor:
    """Return the rows of all processes [P N, ...], in the order of their ranks.

    Each of the P processes gives N rows, the same number in each. All of them must compute the
    same loss from the result. The backward pass gives each process the gradient of its own rows,
    times P: the processes' gradients are averaged afterwards, which divides by P. So every
    parameter gets the gradient that a single process with all rows would compute.
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
