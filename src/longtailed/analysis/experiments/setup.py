"""What an experiment builds its grid from: data, training, and how large it may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from longtailed.data.loading import load_splits
from longtailed.errors import LongTailedError, unknown_name
from longtailed.recipes import Data, NetworkSpec, Recipe, Stage, override
from longtailed.runs.prepare import with_meta
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule

Size = Literal["small", "paper"]
SIZES = ("small", "paper")
PAPER_IMAGES = 5000  # of each class in CIFAR-10, on which the published grids are built
SMALL_IMAGES, LEAST_IMAGES = (500, 24)  # of each class in a small grid, at most and at least
UPDATES = {"digits": 300}  # of the network in each run of a small grid
OTHER_UPDATES = 600  # with other data


@dataclass(frozen=True)
class Point:
    """One place in an experiment's grid: its name, its settings and the recipe trained there."""

    name: str
    settings: Mapping[str, Any]
    recipe: Recipe


@dataclass(frozen=True)
class Setup:
    """A size, a recipe that all runs share, and the class sizes [C] of its training images.

    `base` has one stage. If its number of epochs is 0, every run trains for as many epochs as give
    `updates` updates of the network; a fixed number of epochs would be too few where a set is
    small. `in_memory` says whether the images are decoded pixels rather than files.
    """

    size: Size
    base: Recipe
    available: tuple[int, ...]
    updates: int = 0
    coarse: bool = False
    in_memory: bool = True

    @property
    def classes(self) -> int:
        """The number of classes C."""
        return len(self.available)

    @property
    def paper(self) -> bool:
        """Whether the published grid is wanted."""
        return self.size == "paper"

    def images(self, needed: int | None = None) -> int:
        """Return the size of the largest class in a grid.

        In paper size that is `needed`, or what every class has; in small size at most
        `SMALL_IMAGES`, rounded down to tens. Raises `LongTailedError` if a class has too few.
        """
        least = min(self.available)
        wanted = (needed or least) if self.paper else LEAST_IMAGES
        if least < wanted:
            advice = "use size small" if self.paper else "use larger data"
            raise LongTailedError(
                f"the {self.size} grid needs {wanted:,} training images of each class, but class "
                f"{self.available.index(least)} of {self.base.data.source} has {least:,}; {advice}."
            )
        return wanted if self.paper else min(least // 10 * 10, SMALL_IMAGES)

    def point(
        self,
        name: str,
        counts: Sequence[int],
        *,
        settings: Mapping[str, Any],
        similar: Mapping[str, Any] | None = None,
        network: str | None = None,
        stages: Sequence[tuple[str, Mapping[str, Any]]] | None = None,
    ) -> Point:
        """Return a point of the grid: class sizes, and what differs from the base recipe.

        `settings` are what the results call its place.

        `stages` are (method, options), trained one after another as the base's only stage is.
        """
        base, total = self.base, sum(counts)
        first = base.stages[0]
        chain = stages or [(first.method, first.options)]
        steps = max(1, total // first.batch_size)
        shared = {**first.model_dump(), "epochs": first.epochs or math.ceil(self.updates / steps)}
        edited = base.data.similar.model_copy(update=dict(similar or {}))
        data = base.data.model_copy(update={"counts": tuple(counts), "similar": edited})
        recipe = base.model_copy(
            update={
                "name": f"{base.name}-{name}",
                "data": data,
                "network": base.network.model_copy(update={"name": network} if network else {}),
                "stages": tuple(
                    Stage.model_validate({**shared, "method": method, "options": dict(options)})
                    for method, options in chain
                ),
            }
        )
        return Point(name, settings, recipe)


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """Return the recipe with a seed, which also chooses the images of each class.

    Points of a grid with the same seed therefore share their images as far as their counts go,
    and differences between them are taken seed by seed.
    """
    data = recipe.data.model_copy(update={"subset_seed": recipe.data.subset_seed + seed})
    return recipe.model_copy(update={"seed": seed, "data": data})


def make_setup(
    name: str,
    size: str = "small",
    data: str | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    coarse: bool = False,
) -> Setup:
    """Return the setup of an experiment called `name`, its data opened to see what there is.

    Raises `LongTailedError` for an unknown size, bad data and overrides of what the grid sets.
    """
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    paper = size == "paper"
    base = Recipe(
        name=name,
        data=Data(source=data or ("cifar10" if paper else "digits"), holdout=0),
        network=NetworkSpec(name="resnet32" if paper else "resnet8"),
        stages=(_PAPER_STAGE if paper else _SMALL_STAGE,),
    )
    changed = override(base, overrides, complete=False)  # the grid sets the rest
    fixed = {key: getattr(changed.data, key) for key in ("imbalance", "max_count", "counts")}
    given = [key for key, value in fixed.items() if value is not None]
    if given:
        raise LongTailedError(f"an experiment sets the class sizes itself; leave out {given[0]}.")
    if changed.seed != base.seed:
        raise LongTailedError("an experiment has several seeds; give them as seeds, such as 0-4.")
    splits = load_splits(with_meta(changed))[0]
    train, tested = splits["train"], splits["test"].class_counts
    if train.num_classes < 2 or 0 in tested:
        raise LongTailedError(
            f"an experiment needs two classes or more, all with test images; {train.name} has "
            f"{train.num_classes} of which {tested.count(0)} have none."
        )
    updates = UPDATES.get(changed.data.source, OTHER_UPDATES)
    available = tuple(train.class_counts)
    return Setup(
        "paper" if paper else "small", changed, available, updates, coarse, train.in_memory
    )


_PAPER_STAGE = Stage(
    epochs=200,
    batch_size=256,
    optimizer=Optimizer(lr=0.1, weight_decay=2e-4),
    schedule=Schedule(kind="step", warmup=5, milestones=(0.8, 0.9), gamma=0.01),
)
_SMALL_STAGE = Stage(
    epochs=0,
    batch_size=64,
    optimizer=Optimizer(lr=0.1, weight_decay=5e-4),
    schedule=Schedule(kind="cosine", warmup=0.1),
)
