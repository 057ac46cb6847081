"""No step of the semantic methods reads a value on the host or rebinds a buffer."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from longtailed.data import Batch
from longtailed.methods import Progress, build_method

COUNTS = [24, 12, 6, 3]
READS = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "is_nonzero"}


class NoHostReads(TorchDispatchMode):
    """Refuses the operations that would make a GPU wait for the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in READS, func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("epoch", [0, 9])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("isda", {}),
        ("isda", {"covariance": "diagonal", "criterion": "focal", "weighting": "inverse"}),
        ("metasaug", {}),
        ("metasaug-ldam", {"meta": "normalized", "statistics": "before", "persist": True}),
        ("metasaug-focal", {"covariance": "diagonal", "clamp": True}),
        ("metasaug", {"covariance": "diagonal", "trainable": "classifier"}),
        ("metasaug", {"meta": "off"}),
        ("risda", {}),
        ("risda", {"persist": False, "mean_shift": "paper", "freeze_start": 0.9}),
    ],
)
def test_a_step_reads_nothing_and_keeps_its_buffers(small_network, name, options, epoch):
    method = build_method(name, small_network(), COUNTS, **options)
    method.begin(None)
    method.train()
    progress = Progress(10, 4, torch.Generator().manual_seed(0))
    progress.enter(epoch, 0.1)
    labels = torch.arange(12) % 4
    batch = Batch((torch.randn(12, 3, 8, 8),), labels, labels)
    places = {key: buffer.data_ptr() for key, buffer in method.named_buffers()}
    for _ in range(2):
        with NoHostReads():
            (loss,) = method.loss({"train": batch, "meta": batch}, progress).values()
            method.after_step(progress)
        loss.backward()
    assert places == {key: buffer.data_ptr() for key, buffer in method.named_buffers()}
