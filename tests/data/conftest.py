"""What tests of operations share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.fixture
def on_fake_gpu() -> Callable[[Tensor], Tensor]:
    """What makes a tensor of the same shape on a GPU, without values, in a `FakeTensorMode`."""
    with FakeTensorMode():
        try:
            torch.empty(1, device="cuda")[None]
        except RuntimeError:
            pytest.skip("this version of torch asks for a driver even for fake tensors on a GPU")

    def move(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")

    return move
