"""What the package uses of torch that its documentation does not promise.

The list is complete: a private name that is not here fails the first test. It is what to look at
when a new version of torch breaks something.
"""

from __future__ import annotations

import operator
import re
from pathlib import Path

import pytest
import torch
import torch._dynamo
import torch._inductor
import torchvision.io  # noqa: F401  (registers torch.ops.image)
from torch.utils import _python_dispatch  # noqa: F401

SOURCES = Path(__file__).parents[1] / "src"
PRIVATE = re.compile(r"\btorch\.(?:\w+\.)*_[a-z]\w*|\btorch\.ops\.\w+\.\w+")
NAMES = {
    "torch._standard_gamma": "gamma draws from a generator, for Beta; the public draws take none",
    "torch._foreach_mul": "one kernel for all parameters of the virtual step",
    "torch._foreach_sub": "as above",
    "torch.cpu._is_avx512_bf16_supported": "whether the processor computes in bfloat16",
    "torch.cpu._is_amx_tile_supported": "as above",
    "torch.ops.mkldnn._is_mkldnn_bf16_supported": "as above, for processors other than x86",
    "torch.ops.image.decode_image": "torchvision's decoder, whose Python wrapper warns",
    "torch.ops.aten.native_batch_norm_backward": "the tangent of batch normalisation",
    "torch.utils._python_dispatch": "counts the operations of a step",
    "torch._dynamo": "the module of an error that compilation raised",
    "torch._inductor": "as above",
}


def test_the_list_is_complete() -> None:
    found = {name for path in SOURCES.rglob("*.py") for name in PRIVATE.findall(path.read_text())}
    assert found == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_torch_still_has_it(name: str) -> None:
    assert operator.attrgetter(name.removeprefix("torch."))(torch) is not None


def test_gammas_come_from_the_generator_alone() -> None:
    def draw() -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        return torch._standard_gamma(torch.full((500,), 0.7).double(), generator=generator)

    before = torch.get_rng_state()
    first = draw()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draw(), first)
    assert first.mean().item() == pytest.approx(0.7, abs=0.15)
