"""Small data and networks that many tests share."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")  # test processes share the cores; children obey too

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from longtailed.cli import main as cli
from longtailed.data import ImageSet, Splits, parse_view
from longtailed.nn import Network, build_network
from longtailed.training import capture

torch.set_num_threads(1)


def make_imageset(counts: list[int], side: int = 16, seed: int = 0) -> ImageSet:
    """Return noisy images whose colour tells their class, so that a few steps learn them.

    Up to 8 classes have colours of their own."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    corners = (np.arange(len(counts))[:, None] >> np.arange(3)) & 1  # of the colour cube
    colours = (60 + 130 * corners)[:, :, None, None]
    noise = generator.normal(0, 25, size=(len(labels), 3, side, side))
    pixels = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
    names = tuple(f"class {c}" for c in range(len(counts)))
    return ImageSet(torch.from_numpy(pixels), labels, names, name="synthetic")


def make_splits(counts: list[int], side: int = 16, **changes: object) -> Splits:
    """Return train, holdout, test and meta splits of `make_imageset`."""
    settings: dict[str, object] = {
        "sets": {
            "train": make_imageset(counts, side, seed=1),
            "holdout": make_imageset([4] * len(counts), side, seed=2),
            "test": make_imageset([8] * len(counts), side, seed=3),
            "meta": make_imageset([4] * len(counts), side, seed=4),
        },
        "views": {
            "standard": parse_view("pad_crop(2), flip"),
            "strong": parse_view("pad_crop(2), flip"),
            "sim": parse_view("pad_crop(3), flip, grayscale"),
            "test": parse_view(""),
        },
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
    }
    return Splits(**{**settings, **changes})  # type: ignore[arg-type]


class CountedImages:
    """Images that pretend to be encoded; `decoded` lists the rows that were asked for."""

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels, self.decoded = pixels, []

    def __len__(self) -> int:
        return len(self.pixels)

    def decode(self, row: int) -> torch.Tensor:
        self.decoded.append(row)
        return self.pixels[row]

    def identity(self, row: int) -> bytes:
        return self.pixels[row].numpy().tobytes()

    def describe(self, row: int) -> str:
        return f"image {row}"


@pytest.fixture
def counted() -> Callable[[ImageSet], ImageSet]:
    def count(imageset: ImageSet) -> ImageSet:
        return dataclasses.replace(imageset, images=CountedImages(imageset.images))

    return count


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return fabric


@pytest.fixture
def splits() -> Splits:
    return make_splits([24, 12, 6, 3])


@pytest.fixture
def small_network() -> Callable[..., Network]:
    def build(num_classes: int = 4, head: str = "linear", seed: int = 0) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_network("resnet8", num_classes, head=head, width=0.5)

    return build


@pytest.fixture
def imageset_of() -> Callable[..., ImageSet]:
    return make_imageset


@pytest.fixture
def splits_of() -> Callable[..., Splits]:
    return make_splits


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty directory; return (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["longtailed", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def photos(tmp_path):
    """A folder of small coloured images in three classes, without a test split."""
    for number, (name, count) in enumerate([("ant", 30), ("bee", 12), ("wasp", 6)]):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            colour = [20 + 10 * (i % 5)] * 3
            colour[number] = 200
            Image.new("RGB", (40, 36), tuple(colour)).save(
                tmp_path / "photos" / name / f"{i:03d}.png"
            )
    return tmp_path / "photos"


class RecordedGraph(TorchDispatchMode):
    """Stands in for a CUDA graph on the CPU: fixed operations on fixed memory, replayed.

    Every operation that the captured function performs is noted with its arguments, and done again
    into the same memory at a replay; Python does not run again. What a CUDA capture refuses (a
    value read by the host, a shape that depends on values, a copy from the host) is refused here.
    Unlike a CUDA capture it performs the operations once while recording, so what they overwrote
    is put back. Like one, it leaves generators in disorder when it fails.
    """

    refused = (
        "_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "equal", "bincount",
        "_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive",
        "repeat_interleave",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        masks = [a for a in torch.utils._pytree.tree_leaves(args) if isinstance(a, torch.Tensor)]
        by_mask = name in {"index", "index_put", "index_put_"} and any(
            mask.dtype == torch.bool for mask in masks[1:2]
        )
        if name in self.refused or by_mask:
            self.refuse(name)()
        written = torch.utils._pytree.tree_leaves(
            [
                kwargs.get(argument.name, args[place] if place < len(args) else None)
                for place, argument in enumerate(func._schema.arguments)
                if argument.alias_info is not None and argument.alias_info.is_write
            ]
        )
        if name == "native_batch_norm":  # its schema does not say that it writes these
            written += args[3:5]
        for tensor in written:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    def capture(self, function, generators) -> None:
        states = [generator.get_state() for generator in generators]
        with pytest.MonkeyPatch.context() as patch:
            for name in ("tolist", "numpy", "cpu"):
                patch.setattr(torch.Tensor, name, self.refuse(name))
            try:
                with self:
                    function()
            except RuntimeError:
                states = [torch.Generator().manual_seed(666).get_state()] * len(states)
                raise
            finally:
                for storage, kept in self.before.values():
                    storage.copy_(kept)
                for generator, state in zip(generators, states, strict=True):
                    generator.set_state(state)

    @staticmethod
    def refuse(name: str):
        def refused(*_args, **_kwargs):
            raise RuntimeError(f"{name} is not permitted when stream is capturing")

        return refused

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.calls:
            fresh = [returned.alias_info is None for returned in func._schema.returns]
            if not func._schema.is_mutable and not any(fresh):
                continue  # a view
            again = func(*args, **kwargs)
            if not fresh:
                continue
            pairs = [(out, again)] if len(fresh) == 1 else zip(out, again, strict=True)
            for is_fresh, pair in zip(fresh, pairs, strict=True):
                old, new = map(torch.utils._pytree.tree_leaves, pair)
                for kept, value in zip(old, new, strict=True):
                    written = isinstance(kept, torch.Tensor) and not kept._is_zerotensor()
                    if is_fresh and written:
                        kept.copy_(value)


def on_cuda(fabric: Fabric) -> SimpleNamespace:
    """Return what a capture asks of a Fabric, with the answers of one on a GPU."""
    answers = {name: getattr(fabric, name) for name in ("world_size", "is_global_zero")}
    return SimpleNamespace(device=torch.device("cuda"), **answers)


@pytest.fixture
def fabric_on_cuda(fabric) -> SimpleNamespace:
    return on_cuda(fabric)


@pytest.fixture
def recorded_graphs(monkeypatch) -> list[RecordedGraph]:
    """Make captures possible on the CPU; return the graphs as they are made."""
    made: list[RecordedGraph] = []

    def make() -> RecordedGraph:
        made.append(RecordedGraph())
        return made[-1]

    def without_device(method, fabric, options):
        return obstacle(method, on_cuda(fabric), options)

    obstacle = capture.obstacle
    monkeypatch.setattr(capture, "CudaGraph", make)
    monkeypatch.setattr(capture, "obstacle", without_device)
    return made
