"""What a training step costs: eager, captured, compiled, and against a bare PyTorch loop."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from longtailed.analysis.bench.floor import large_copy, least_work, matrix_product
from longtailed.analysis.bench.profiling import count_launches, count_operations, synchronize
from longtailed.data import ImageSet, Splits, long_tail_counts
from longtailed.data.default_views import default_views
from longtailed.errors import LongTailedError, unknown_name
from longtailed.methods import Method, build_method
from longtailed.recipes import Recipe
from longtailed.report.strict_json import to_json
from longtailed.runs.network import initial_network
from longtailed.runs.prepare import prepare
from longtailed.runs.run import as_recipe
from longtailed.training.capture import Replayed, decide_capture, side_stream
from longtailed.training.compiling import compiled_stages
from longtailed.training.engine import make_fabric, precision_of
from longtailed.training.fit import train_step
from longtailed.training.job import Job
from longtailed.training.provenance import benchmark_provenance
from longtailed.training.steps import Steps

RANDOM = "random"
VARIANTS = BARE, EAGER, CAPTURED, COMPILED, BOTH = (
    "bare", "eager", "captured", "compiled", "captured+compiled",
)  # fmt: skip
DATA = {False: "data", True: "data, captured"}
CAPTURING = {CAPTURED, BOTH}
EPOCHS = 10_000  # so long that no schedule changes anything while it is measured
WARM_STEPS = 6  # untimed: three eager, a capture, and two more


def bench(
    recipe: Recipe | str | None = None,
    *,
    data: str | Path | None = None,
    method: str | None = None,
    network: str | None = None,
    overrides: Sequence[str] = (),
    variants: Sequence[str] = (),
    rounds: int = 20,
    device: str = "auto",
) -> dict[str, Any]:
    """Return what one training step of a recipe's first stage costs, with its provenance.

    Without data, pixels are random: CIFAR-10's size and class sizes at an imbalance of 100. The
    variants take turns, a step each (on a GPU a block of steps), `rounds` times; figures are
    medians. What is measured is the first phase of the stage; for a later one begin it at once
    (`start=0`, `weighting_start=0`). `ratio_to_bare` is the median over rounds of the ratio to the
    bare loop, which goes forward, backward and updates on one ready batch with plain
    cross-entropy. The floor (see `floor.least_work`) takes the best matrix product and copy of all
    rounds.

    Raises `LongTailedError` for a variant that cannot run here and for a bad recipe.
    """
    if recipe is None and data is None:
        data = RANDOM
    chosen = as_recipe(recipe, data=data, method=method, network=network, overrides=overrides)
    fabric = make_fabric(device, 1, chosen.precision)
    with torch.random.fork_rng(), side_stream(fabric.device), ExitStack() as stack:
        if chosen.data.source == RANDOM:
            splits = _random_splits(chosen, fabric.device)
        else:
            splits, _ = prepare(chosen, fabric.device)
        measured = _Measured(chosen, fabric, splits, variants, stack)
        figures = measured.figures(rounds)
    settings = chosen.model_dump(mode="json", exclude_defaults=True)
    return {
        "benchmark": "step",
        "recipe": settings,
        **benchmark_provenance(fabric.device),
        **figures,
    }


def append(result: dict[str, Any], path: Path) -> None:
    """Append a result to a file of JSON lines."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(to_json(result) + "\n")
    except OSError as error:
        raise LongTailedError(f"cannot write {path}: {error.strerror}.") from None


def _random_splits(recipe: Recipe, device: torch.device) -> Splits:
    counts = long_tail_counts(10, 5000, 100)
    generator = torch.Generator().manual_seed(0)
    size = (sum(counts), 3, 32, 32)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    labels = np.repeat(np.arange(10), counts)
    train = ImageSet(pixels, labels, tuple(map(str, range(10))), name=RANDOM)
    return Splits(
        sets={"train": train, "meta": train.subset(np.arange(0, sum(counts), 50))},
        views=default_views(train, train, recipe.data),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        device=device,
        channels_last=recipe.channels_last,
    )


class _Measured:
    """The variants of one recipe's step, each with weights of its own, and their figures."""

    def __init__(
        self,
        recipe: Recipe,
        fabric: Fabric,
        splits: Splits,
        variants: Sequence[str],
        stack: ExitStack,
    ) -> None:
        self.recipe, self.fabric, self.splits = recipe, fabric, splits
        self.network = initial_network(recipe, splits).to(fabric.device)
        self.on_gpu = fabric.device.type == "cuda"
        self.block = 20 if self.on_gpu else 1
        self.first_seconds: dict[str, float] = {}
        self.peak_memory: dict[str, int] = {}
        self.operations: dict[str, int] = {}
        self.launches: dict[str, float] = {}
        method = self._method()
        if not method.trains or not method.streams["train"].views:
            raise LongTailedError(
                f"{recipe.stages[0].method} takes no steps on images (it works on features that "
                "are computed once), so bench cannot measure it."
            )
        names = list(variants) or self._possible()
        for name in names:
            if name not in VARIANTS:
                raise unknown_name("variant", name, VARIANTS)
        self.work = {name: self._warm(name, self._variant(name, stack)) for name in names}
        for captured in {name in CAPTURING for name in names}:
            self.work[DATA[captured]] = self._warm(DATA[captured], self._data(captured))

    def _possible(self) -> list[str]:
        can = decide_capture("auto", self._method(), self.fabric, self._job("auto").options)
        return [BARE, EAGER, *([CAPTURED] if can else [])]

    def _method(self) -> Method:
        stage, counts = self.recipe.stages[0], self.splits.sets["train"].class_counts
        network = copy.deepcopy(self.network)
        return build_method(stage.method, network, counts, **stage.options).to(self.fabric.device)

    def _job(self, capture: Any) -> Job:
        options = self.recipe.stages[0].model_copy(update={"epochs": EPOCHS})
        return Job(self.fabric, self.splits, options, seed=self.recipe.seed, capture=capture)

    def _variant(self, name: str, stack: ExitStack) -> Callable[[], object]:
        if name == BARE:
            return _bare_step(copy.deepcopy(self.network), self._batch(), self._job("never"))
        captured = name in CAPTURING
        method = self._method().train()
        if name in {COMPILED, BOTH}:
            stack.enter_context(compiled_stages(method))
        job = self._job("always" if captured else "never")
        return _forever(Steps(method, job, torch.Generator(self.fabric.device))).__next__

    def _data(self, captured: bool) -> Callable[[], object]:
        """Return the part of a step that draws, augments and normalises all streams' batches."""
        feeds = {
            name: self.splits.open(name, stream, self.recipe.stages[0].batch_size, 0)
            for name, stream in self._method().streams.items()
        }
        draws = {name: feed.endless_draws(EPOCHS) for name, feed in feeds.items()}
        replayed = {name: Replayed([feed.generator]) for name, feed in feeds.items()}

        def work() -> None:
            for name, draw in draws.items():
                drawn, feed = next(draw), feeds[name]
                feed.generator.manual_seed(drawn.seed)
                if captured:
                    replayed[name](feed.prepare, drawn.tensors)
                else:
                    feed.prepare(drawn.tensors)

        return work

    def _batch(self) -> tuple[Tensor, Tensor]:
        stream = self._method().streams["train"]
        feed = self.splits.open("train", stream, self.recipe.stages[0].batch_size, 0)
        batch = next(feed.epoch(0, 1))
        return batch.images[0], batch.labels

    def _warm(self, name: str, work: Callable[[], object]) -> Callable[[], object]:
        device = self.fabric.device
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
            held = torch.cuda.memory_allocated(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        self.first_seconds[name] = time.perf_counter() - started
        if name in {BARE, EAGER}:
            self.operations[name] = count_operations(work)
        for _ in range(WARM_STEPS):
            work()
        if self.on_gpu:
            self.launches[name] = count_launches(work, device)
            self.peak_memory[name] = torch.cuda.max_memory_allocated(device) - held
        return work

    def figures(self, rounds: int) -> dict[str, Any]:
        """Return the figures of all variants after `rounds` turns each."""
        dtype = torch.bfloat16 if precision_of(self.fabric) == "bf16" else torch.float32
        device, (images, labels) = self.fabric.device, self._batch()
        with self.fabric.autocast():
            work = least_work(copy.deepcopy(self.network), images, labels, dtype)
        product, operations = matrix_product(device, dtype)
        large, traffic = large_copy(device)
        seconds = self._take_turns(rounds, {"product": product, "copy": large})
        speeds = operations / seconds.pop("product").min(), traffic / seconds.pop("copy").min()
        floor = work.seconds(*speeds)
        rows = {name: self._row(name, seconds, len(labels), floor) for name in seconds}
        data = {part: rows.pop(part)["ms_per_step"] for part in DATA.values() if part in rows}
        for name, row in rows.items():
            if name != BARE:
                share = data[DATA[name in CAPTURING]] / row["ms_per_step"]
                row["data_share"] = round(share, 4)
        return {
            "method": self.recipe.stages[0].method,
            "network": self.recipe.network.name,
            "batch_size": len(labels),
            "image_size": images.shape[-1],
            "precision": precision_of(self.fabric),
            "channels_last": self.recipe.channels_last,
            "rounds": rounds,
            "steps_per_round": self.block,
            "ms_per_step_of": data,
            "floor": work.describe(*speeds),
            "variants": rows,
        }

    def _take_turns(
        self, rounds: int, references: dict[str, Callable[[], object]]
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return the seconds of a step of each variant and of each reference, round by round."""
        device = self.fabric.device
        turns = {name: (work, self.block) for name, work in self.work.items()}
        turns |= {name: (work, 1) for name, work in references.items()}
        taken: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(rounds):
            for name, (work, times) in turns.items():
                synchronize(device)
                started = time.perf_counter()
                for _ in range(times):
                    work()
                synchronize(device)
                taken[name].append((time.perf_counter() - started) / times)
        return {name: np.array(values) for name, values in taken.items()}

    def _row(
        self, name: str, seconds: dict[str, np.ndarray[Any, Any]], images: int, floor: float
    ) -> dict[str, Any]:
        median = float(np.median(seconds[name]))
        row: dict[str, Any] = {
            "ms_per_step": round(1e3 * median, 3),
            "quartiles_ms": [round(1e3 * q, 3) for q in np.quantile(seconds[name], [0.25, 0.75])],
            "images_per_second": round(images / median, 1),
            "first_step_seconds": round(self.first_seconds[name], 2),
            "fraction_of_floor": round(floor / median, 4),
        }
        if BARE in seconds and name != BARE:
            row["ratio_to_bare"] = round(float(np.median(seconds[name] / seconds[BARE])), 4)
        if name in self.operations:
            row["operations_per_step"] = self.operations[name]
        if self.on_gpu:
            row["launches_per_step"] = self.launches[name]
            row["peak_memory_mib"] = round(self.peak_memory[name] / 2**20, 1)
        return row


def _bare_step(network: nn.Module, batch: tuple[Tensor, Tensor], job: Job) -> Callable[[], object]:
    """Return forward, backward and update on one ready batch, and nothing else."""
    images, labels = batch
    settings = job.options.optimizer
    optimizer = torch.optim.SGD(
        network.parameters(), lr=settings.lr, momentum=0.9, weight_decay=2e-4, fused=True
    )

    def work() -> None:
        with job.fabric.autocast():
            logits = network(images)
        torch.autograd.backward(nn.functional.cross_entropy(logits.float(), labels))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return work


def _forever(steps: Steps) -> Iterator[int]:
    for epoch in range(EPOCHS):
        steps.enter(epoch)
        yield from steps.run(train_step)
        steps.sums.reset()
