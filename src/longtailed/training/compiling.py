"""torch.compile for the backbone, stage by stage, while a method is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from longtailed.errors import LongTailedError
from longtailed.methods import Method
from longtailed.nn import Backbone


@contextmanager
def compiled_stages(method: Method) -> Iterator[None]:
    """Run the stages of the method's backbone compiled wherever gradients are wanted.

    Each stage is compiled by itself, so that methods that run only some stages profit too.
    Evaluation is not compiled: each of its batch sizes would cost another compilation.

    Raises `LongTailedError` for a method that uses forward-mode differentiation.
    """
    if not method.compilable:
        raise LongTailedError(
            f"{type(method).__name__} cannot be compiled, because it differentiates the network "
            "in forward mode; use compile=false."
        )
    backbone = method.network.backbone
    if not isinstance(backbone, Backbone):
        raise LongTailedError("only a staged backbone can be compiled; use compile=false.")
    plain = backbone.run_stage
    stages = [
        torch.compile(partial(plain, stage), dynamic=False)
        for stage in range(backbone.num_stages + 1)
    ]

    def run_stage(stage: int, maps: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return plain(stage, maps)
        try:
            return stages[stage](maps)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = " ".join(str(error).split())[:160].rstrip(".")
            raise LongTailedError(
                f"stage {stage} of the backbone cannot be compiled: {reason}; use compile=false."
            ) from error

    backbone.run_stage = run_stage  # type: ignore[method-assign]
    try:
        yield
    finally:
        del backbone.run_stage
