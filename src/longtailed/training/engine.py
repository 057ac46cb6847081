"""The engine under the loop: device, precision and processes, through Lightning Fabric."""

from __future__ import annotations

import os
import platform
import warnings

import torch
from lightning_fabric import Fabric

from longtailed.errors import LongTailedError


def make_fabric(
    device: str = "auto",
    devices: int = 1,
    precision: str = "32",
    *,
    idle_parameters: bool = False,
) -> Fabric:
    """Return launched Fabric on the device asked for.

    `device` is "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:K"; `devices` is the number
    of processes. Under torchrun the environment's world is used. `precision` is "32", "bf16" or
    "auto" (see `resolve_precision`); `precision_of` returns the choice. `idle_parameters` says
    that a step may leave parameters without a gradient (`Method.idle_parameters`): several
    processes then find out in each step which ones, and do not update them either.
    Raises `LongTailedError` for a device that this machine does not have.
    """
    kind, _, number = device.partition(":")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        kind = "cuda" if available else "cpu"
    if kind not in {"cpu", "cuda"} or (number and not number.isdigit()):
        raise LongTailedError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:K.")
    if number and (kind == "cpu" or devices > 1):
        raise LongTailedError(
            f"device {device!r} with {devices} process(es) makes no sense; a number names one "
            "CUDA device for one process."
        )
    if kind == "cuda" and max(devices, int(number or 0) + 1) > available:
        raise LongTailedError(
            f"device {device!r} with {devices} process(es) was asked for, but this machine has "
            f"{available} CUDA device(s); use device=cpu."
        )
    if kind == "cpu" and precision == "bf16" and not has_bfloat16():
        warnings.warn(
            "this processor has no bfloat16 arithmetic: precision=bf16 will be many times slower "
            "than precision=32.",
            stacklevel=2,
        )
    half = resolve_precision(precision, torch.device(kind)) == "bf16"
    world = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    several = "ddp_find_unused_parameters_true" if idle_parameters else "ddp"
    fabric = Fabric(
        accelerator=kind,
        devices=[int(number)] if number and world == 1 else world,
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
        strategy=several if int(os.environ.get("WORLD_SIZE", world)) > 1 else "auto",
        precision="bf16-mixed" if half else "32-true",
    )
    fabric.launch()
    return fabric


def has_bfloat16() -> bool:
    """Return whether this processor computes in bfloat16 rather than emulating it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if platform.machine().lower() in {"x86_64", "amd64"}:
        # oneDNN says yes to every processor with AVX-512, of which many only emulate it.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return "bf16" or "32": for "auto" bf16 where the device computes it in hardware.

    With AVX-512 bf16 a step of ResNet-32 takes 0.6 of its time in float32; where bfloat16 is
    emulated, 7 times as long.
    """
    if precision != "auto":
        return precision
    cuda = device.type == "cuda"
    able = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else has_bfloat16()
    return "bf16" if able else "32"


def precision_of(fabric: Fabric) -> str:
    """Return the precision that a Fabric computes in: "bf16" or "32"."""
    return "bf16" if fabric.strategy.precision.precision == "bf16-mixed" else "32"
