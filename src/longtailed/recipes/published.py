"""Published figures of the recipes, from one table that `longtailed list` and the report read.

The table is `published.csv` beside this file, a row for each figure:

recipe, imbalance: the recipe without its ratio, and the ratio (empty: the data's own).
changes: `key=value` overrides with which the figure was published, separated by spaces.
figure, measure: top-1 "accuracy" or "error", in percent, as printed in the source.
protocol: which epoch was reported, and on which images.
certainty: "read" in the source; "copied", read in another paper, list or leaderboard; or
    "recalled", seen nowhere: check it before you quote it.
source, note: where the figure stands, and how its run differs from the recipe.

The first row of a recipe without changes is the one that `longtailed list recipes` shows.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from longtailed.recipes import RECIPES, named_recipe
from longtailed.recipes.override import override
from longtailed.recipes.recipe import Recipe

MEASURES = ("accuracy", "error")
CERTAINTIES = ("read", "copied", "recalled")


@dataclass(frozen=True)
class Published:
    """One published figure; the fields are the columns of the table."""

    recipe: str
    imbalance: float | None
    changes: tuple[str, ...]
    figure: float
    measure: str
    protocol: str
    certainty: str
    source: str
    note: str

    @property
    def accuracy(self) -> float:
        """The top-1 accuracy in percent, whatever the source prints."""
        return self.figure if self.measure == "accuracy" else 100 - self.figure

    @property
    def name(self) -> str:
        """The name of the recipe that has this row's ratio, or can be given it."""
        own = f"{self.imbalance:g}-" if self.imbalance else ""
        with_ratio = self.recipe.replace("-lt-", f"-lt-{own}", 1)
        return with_ratio if with_ratio in RECIPES else self.recipe

    @property
    def overrides(self) -> tuple[str, ...]:
        """What the recipe called `name` must be given to have this row's settings."""
        ratio = named_recipe(self.name).data.imbalance
        asked = () if self.imbalance == ratio else (f"imbalance={self.imbalance:g}",)
        return (*asked, *self.changes)

    @property
    def sentence(self) -> str:
        """The figure with its measure, protocol, source, certainty and note, as text."""
        told = "" if self.certainty == "read" else f" ({self.certainty})"
        note = f"; {self.note}" if self.note else ""
        return f"{self.measure} {self.figure:.4g} %, {self.protocol}; {self.source}{told}{note}"

    def build(self) -> Recipe:
        """Return the recipe with the settings of this row."""
        return override(named_recipe(self.name), self.overrides)


@cache
def published_table() -> tuple[Published, ...]:
    """Return all rows of the table, in its order."""
    text = resources.files("longtailed.recipes").joinpath("published.csv").read_text("utf-8")
    return tuple(_row(**cells) for cells in csv.DictReader(text.splitlines()))


def _row(imbalance: str, changes: str, figure: str, **texts: str) -> Published:
    return Published(
        imbalance=float(imbalance) if imbalance else None,
        changes=tuple(changes.split()),
        figure=float(figure),
        **texts,
    )


def figures_of(name: str) -> list[Published]:
    """Return the rows of the recipe called `name`, with any changes, in the table's order."""
    return [row for row in published_table() if row.name == name]


def figures_for(recipe: Recipe) -> list[Published]:
    """Return the rows that were published for a recipe's settings, whatever its seed."""
    rows = figures_of(recipe.name)
    same = {"seed": recipe.seed}
    return [row for row in rows if row.build().model_copy(update=same).identity == recipe.identity]
