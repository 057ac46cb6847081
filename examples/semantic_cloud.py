"""Draw what semantic augmentation imagines of rare classes, before and after RISDA's reasoning.

    python examples/semantic_cloud.py --out semantic-cloud.png

A small network is trained on long-tailed digits with plain cross-entropy, and stopped while it
still takes rare digits for frequent ones. For the two rare digits that it mistakes most, the
picture shows the covariance ellipse and a cloud of augmented features: on the left from the digit's
own images (as ISDA has it), on the right reasoned from the digits it is taken for (RISDA). Circles
are test images, which had no part in any of it. A few seconds on two CPU cores.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from longtailed.data.settings import Data
from longtailed.data.splits import Splits
from longtailed.losses import ClassStatistics, reason_covariance
from longtailed.methods import CrossEntropy, class_relation_graph
from longtailed.methods.relations import tail_classes
from longtailed.nn import Network, build_network
from longtailed.recipes import Recipe
from longtailed.report.canvas import INK, RC, RUN_COLORS, new_figure
from longtailed.runs.prepare import prepare
from longtailed.training.engine import make_fabric
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule

ALPHA, BETA = 1.0, 0.5  # RISDA's default strengths, as they are at the end of a run
COPIES = 300  # augmented features to draw
LENDERS = 3  # classes to show beside a rare one, at most
LEAST_IMAGES = 3  # two images have a line for an ellipse
RARE, FREQUENT = RUN_COLORS[1], (RUN_COLORS[0], RUN_COLORS[2], RUN_COLORS[3])
HEADINGS = ("ISDA: covariance of its own images", "RISDA: reasoned from other digits")
# The looks of what is drawn, for the marks and their legend.
OWN: dict[str, Any] = {"marker": "D", "color": RARE, "markersize": 9, "markeredgecolor": "white"}
CLOUD: dict[str, Any] = {"marker": ".", "color": RARE, "markersize": 4, "alpha": 0.4}
UNSEEN: dict[str, Any] = {"marker": "o", "color": INK, "markersize": 5.5, "fillstyle": "none"}
OTHERS: dict[str, Any] = {"marker": ".", "markersize": 4, "alpha": 0.35}


@dataclass
class Scene:
    """Features [N, A] and labels [N] of both splits, and what RISDA reasons from them."""

    features: Tensor
    labels: Tensor
    test_features: Tensor
    test_labels: Tensor
    mean: Tensor
    covariance: Tensor
    graph: Tensor
    reasoned: Tensor

    def lenders(self, rare: int) -> list[int]:
        """Return the other classes that the rare one is most often taken for."""
        shares = self.graph[rare].clone()
        shares[rare] = 0
        order = shares.argsort(descending=True, stable=True)
        return [c for c in order.tolist() if shares[c] > 0][:LENDERS]


def train(splits: Splits, counts: list[int], epochs: int) -> Network:
    """Return a small network trained with plain cross-entropy."""
    options = FitOptions(
        epochs=epochs,
        batch_size=32,
        optimizer=Optimizer(lr=0.05, weight_decay=5e-4),
        schedule=Schedule(kind="cosine", warmup=0.1),
    )
    torch.manual_seed(0)
    method = CrossEntropy(build_network("resnet8", len(counts)), counts)
    fit(method, Job(make_fabric("cpu"), splits, options, label="cross-entropy"))
    return method.network.eval()


def rare_classes(counts: list[int]) -> Tensor:
    """Return all classes but the most frequent fifth, as RISDA does."""
    return tail_classes(torch.tensor(counts), 0.2)


@torch.no_grad()
def observe(network: Network, splits: Splits, counts: list[int]) -> Scene:
    """Return what the network makes of the images, and what RISDA reasons from that."""
    seen = {}
    for split in ("train", "test"):
        batches = list(splits.scan(split, batch_size=64))
        rows = torch.cat([network.features(batch.images[0]) for batch in batches])
        seen[split] = rows, torch.cat([batch.labels for batch in batches])
    features, labels = seen["train"]
    statistics = ClassStatistics(len(counts), features.shape[1])
    statistics.update(features, labels)
    predictions = network.head(features).argmax(1)
    graph = class_relation_graph(predictions, labels, len(counts), decimals=None).float()
    reasoned = reason_covariance(statistics.covariance, graph, rare_classes(counts))
    return Scene(
        features, labels, *seen["test"], statistics.mean, statistics.covariance, graph, reasoned
    )


def most_mistaken(scene: Scene, counts: list[int]) -> list[int]:
    """Return the two rare classes whose training images are most often taken for another."""
    able = [c for c in rare_classes(counts).tolist() if counts[c] >= LEAST_IMAGES]
    return sorted(sorted(able, key=lambda c: float(scene.graph[c, c]))[:2])


class Plane:
    """The two principal directions of the features of some classes."""

    def __init__(self, scene: Scene, classes: list[int]) -> None:
        self.chosen = torch.isin(scene.labels, torch.tensor(classes))
        features = scene.features[self.chosen]
        self.centre = features.mean(0)
        self.axes = torch.linalg.svd(features - self.centre, full_matrices=False).Vh[:2].T

    def points(self, features: Tensor) -> Tensor:
        """Return features [N, A] or [A] as points [N, 2] or [2]."""
        return torch.matmul(features - self.centre, self.axes)

    def spread(self, covariance: Tensor) -> Tensor:
        """Return a covariance of features [A, A] as that of their points [2, 2]."""
        return torch.matmul(self.axes.T, covariance @ self.axes)


def draw_row(pair: Sequence[Axes], scene: Scene, rare: int) -> list[float]:
    """Draw a rare class before and after; return the share of test images in each ellipse."""
    lenders = scene.lenders(rare)
    plane = Plane(scene, [rare, *lenders])
    images = scene.features[scene.labels == rare]
    unseen = plane.points(scene.test_features[scene.test_labels == rare])
    shift = ALPHA * (scene.graph[rare] @ scene.mean - scene.mean[rare])
    covered = []
    for axes, covariance, moved in (
        (pair[0], scene.covariance[rare], torch.zeros_like(shift)),
        (pair[1], scene.reasoned[rare], shift),
    ):
        for color, c in zip(FREQUENT, lenders, strict=False):
            lent = f"\n{scene.graph[rare, c]:.0%}" if axes is pair[1] else ""
            draw_lender(axes, scene, plane, c, color, f"{c}{lent}")
        spread, middle = plane.spread(covariance), plane.points(scene.mean[rare] + moved)
        axes.plot(*imagine(plane.points(images + moved), spread).T, linestyle="none", **CLOUD)
        axes.plot(*unseen.T, linestyle="none", **UNSEEN)
        draw_ellipse(axes, middle, spread, RARE, linewidth=2.8)
        axes.plot(*plane.points(images).T, linestyle="none", **OWN)
        covered.append(share_inside(unseen, middle, spread))
        axes.set_xlabel(f"the ellipse holds {covered[-1]:.0%} of the test images")
    frame(pair, torch.cat([plane.points(scene.features[plane.chosen]), unseen]))
    pair[0].set_ylabel(f"Digit {rare}, {len(images)} training images", fontweight="bold")
    return covered


def imagine(points: Tensor, spread: Tensor) -> Tensor:
    """Return copies of the points [N, 2] with normal noise of covariance BETA S added."""
    values, vectors = torch.linalg.eigh(BETA * spread)
    noise = torch.randn(COPIES, 2, generator=torch.Generator().manual_seed(0))
    copies = points[torch.arange(COPIES) % len(points)]
    return torch.addmm(copies, noise * values.clamp_min(0).sqrt(), vectors.T)


def share_inside(points: Tensor, middle: Tensor, spread: Tensor) -> float:
    """Return the share of the points that lie within two standard deviations."""
    offset = points - middle
    squared = (offset @ torch.linalg.pinv(spread) * offset).sum(1)
    return float((squared <= 4).float().mean())


def draw_lender(axes: Axes, scene: Scene, plane: Plane, lender: int, color: str, text: str) -> None:
    """Draw the images and the ellipse of a class, and its name and what it lends."""
    points = plane.points(scene.features[scene.labels == lender])
    axes.plot(*points.T, linestyle="none", color=color, **OTHERS)
    middle = plane.points(scene.mean[lender])
    draw_ellipse(axes, middle, plane.spread(scene.covariance[lender]), color, linewidth=1.6)
    halo = [withStroke(linewidth=4, foreground="white")]
    axes.text(
        float(middle[0]), float(middle[1]), text, color=color, fontsize=17, fontweight="bold",
        ha="center", va="center", path_effects=halo, zorder=6,
    )  # fmt: skip


def draw_ellipse(axes: Axes, middle: Tensor, spread: Tensor, color: str, linewidth: float) -> None:
    """Draw the ellipse of two standard deviations."""
    values, vectors = torch.linalg.eigh(spread)
    width, height = (4 * values.clamp_min(0).sqrt()).tolist()
    angle = float(torch.rad2deg(torch.atan2(vectors[1, 0], vectors[0, 0])))
    place, edge = (float(middle[0]), float(middle[1])), {"edgecolor": color, "linewidth": linewidth}
    axes.add_patch(Ellipse(place, width, height, angle=angle, facecolor=color, alpha=0.08))
    axes.add_patch(Ellipse(place, width, height, angle=angle, fill=False, zorder=4, **edge))


def frame(pair: Sequence[Axes], points: Tensor, shape: float = 1.35) -> None:
    """Give the axes equal scales, and room for the points in a frame of that width to height."""
    low, high = points.min(0).values, points.max(0).values
    width, height = (1.1 * (high - low)).tolist()
    width, height = max(width, shape * height), max(height, width / shape)
    x, y = ((low + high) / 2).tolist()
    for axes in pair:
        axes.set(xlim=(x - width / 2, x + width / 2), ylim=(y - height / 2, y + height / 2))
        axes.set_aspect("equal")
        axes.tick_params(labelbottom=False, labelleft=False, length=0)


def add_legend(figure: Figure) -> None:
    """Say above the charts what the marks are."""
    entries = [
        Line2D([], [], linestyle="none", label="training image of the rare digit", **OWN),
        Line2D([], [], linestyle="none", label="augmented feature", **(CLOUD | {"alpha": 1})),
        Line2D([], [], linestyle="none", label="test image of it, not used", **UNSEEN),
        Line2D([], [], color=RARE, linewidth=2.8, label="its covariance (2 std. deviations)"),
        Line2D([], [], color=FREQUENT[0], linewidth=1.6, label="a digit it is taken for"),
        Line2D([], [], linestyle="none", label="%: how often, which it lends"),
    ]
    figure.legend(handles=entries, loc="outside upper left", ncols=3, handlelength=1.6)


@mpl.rc_context(RC)
def draw(scene: Scene, rare: list[int], out: str) -> None:
    """Write the picture as a PNG file and print what it shows."""
    figure = new_figure(880, 330 * len(rare) + 90)
    grid = figure.subplots(len(rare), 2, squeeze=False)
    for axes, heading in zip(grid[0], HEADINGS, strict=True):
        axes.set_title(heading, fontweight="bold")
    for pair, c in zip(grid, rare, strict=True):
        before, after = draw_row(pair, scene, c)
        lent = ", ".join(f"{scene.graph[c, k]:.0%} from {k}" for k in scene.lenders(c))
        print(f"digit {c}: borrows {lent or 'nothing'}; test images {before:.0%} -> {after:.0%}")
    figure.supxlabel("1st principal direction of the features", fontsize=13)
    figure.supylabel("2nd principal direction of the features", fontsize=13)
    add_legend(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    Image.open(drawn).convert("RGB").quantize(256).save(out, "PNG", optimize=True)


def main(epochs: int = 5, out: str = "semantic-cloud.png") -> None:
    """Train, reason, and draw."""
    recipe = Recipe(data=Data(source="digits", imbalance=50, holdout=0))
    splits, manifest = prepare(recipe, torch.device("cpu"))
    counts = manifest["splits"]["train"]["counts"]
    scene = observe(train(splits, counts, epochs), splits, counts)
    draw(scene, most_mistaken(scene, counts), out)
    print(f"picture: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", default="semantic-cloud.png")
    main(**vars(parser.parse_args()))
