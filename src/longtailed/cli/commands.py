"""The commands: each is a thin layer over the Python interface.

A command imports what it runs in its body, so that `--help` needs neither torch nor NumPy.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longtailed.cli.options import (
    ClassNamesOption,
    DeviceOption,
    Grouping,
    ImageColumnOption,
    LabelColumnOption,
    OnBadImage,
    RootOption,
    SplitByOption,
    SplitByPatternOption,
    VerifyOption,
    WeightsOption,
)
from longtailed.errors import LongTailedError

if TYPE_CHECKING:
    from longtailed.recipes import Recipe

app = typer.Typer(
    name="longtailed",
    help="Long-tailed (class-imbalanced) visual recognition: train, compare, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe's name (see `longtailed list recipes`), or key=value."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value changes to the recipe.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A source's name or a path.")] = None,
    method: Annotated[str | None, typer.Option(help="A method's name.")] = None,
    network: Annotated[str | None, typer.Option(help="A network's name.")] = None,
    imbalance: Annotated[
        float | None, typer.Option(help="Largest / smallest class after subsampling.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of a recipe with one stage.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order and augmentation.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several seeds, e.g. 0-4: mean and standard deviation.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Seeds trained at the same time (with --seeds).", min=1)
    ] = None,
    precision: Annotated[str | None, typer.Option(help="32, bf16 or auto.")] = None,
    root: RootOption = None,
    label_column: LabelColumnOption = None,
    image_column: ImageColumnOption = None,
    class_names: ClassNamesOption = None,
    split_by: SplitByOption = None,
    split_by_pattern: SplitByPatternOption = None,
    on_bad_image: Annotated[str | None, typer.Option(help="error or skip.")] = None,
    verify: VerifyOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run's directory.")] = None,
    device: DeviceOption = "auto",
    devices: Annotated[int, typer.Option(help="Processes, one per device.", min=1)] = 1,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log there.")] = False,
) -> None:
    """Train a recipe, or data + method + network; the same command again resumes.

    longtailed train cifar10-lt-ldam-drw download=true

    longtailed train --data photos/ --method ldam-drw --network resnet18 epochs=30
    """
    from longtailed.cli.console import print_results
    from longtailed.runs import run

    assignments = list(overrides or [])
    if recipe is not None and "=" in recipe:
        assignments.insert(0, recipe)
        recipe = None
    given = {
        "epochs": epochs,
        "seed": seed,
        "precision": precision,
        "root": root,
        "label_column": label_column,
        "image_column": image_column,
        "class_names": class_names,
        "split_by": split_by,
        "split_by_pattern": split_by_pattern,
        "on_bad_image": on_bad_image,
        "verify": verify,
    }
    assignments += [f"{key}={value!r}" for key, value in given.items() if value is not None]
    chosen = run.as_recipe(
        recipe,
        data=data,
        method=method,
        network=network,
        imbalance=imbalance,
        overrides=assignments,
    )
    if seeds is not None:
        if any(text.partition("=")[0].strip() == "seed" for text in assignments):
            raise LongTailedError("give either one seed or several (--seeds), not both.")
        how = {"device": device, "devices": devices, "tensorboard": tensorboard}
        train_several(chosen, seeds, out=out, jobs=jobs or 1, **how)
        return
    if jobs is not None:
        raise LongTailedError(
            "--jobs says how many of several seeds train at the same time; give "
            "--seeds, or leave it out."
        )
    finished = run.train(chosen, out=out, device=device, devices=devices, tensorboard=tensorboard)
    print_results([finished])
    typer.echo(f"report: {finished.report}")


def train_several(recipe: Recipe, seeds: str, *, out: Path | None, jobs: int, **how: Any) -> None:
    """Train a recipe with several seeds and print the mean and deviation of their figures.

    `how` are `train_seeds`'s device, devices and tensorboard.
    """
    from longtailed.cli.console import print_results, print_spread
    from longtailed.runs.seeds import parse_seeds, spread, train_seeds

    finished = train_seeds(recipe, parse_seeds(seeds), out=out, jobs=jobs, **how)
    print_results(finished)
    print_spread(spread(finished), len(finished))
    typer.echo(f"report: {finished[0].directory.parent / 'report.html'}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the runs go.")] = Path(
        "runs/demo"
    ),
    device: DeviceOption = "auto",
) -> None:
    """Train cross-entropy and LDAM-DRW on long-tailed digits and compare them (no download)."""
    from longtailed.cli.console import print_results
    from longtailed.report import write_report
    from longtailed.runs import run

    finished = [
        run.train(f"digits-{method}", out=out / method, device=device)
        for method in ("ce", "ldam-drw")
    ]
    report = write_report([one.directory for one in finished], out / "report.html")
    print_results(finished)
    typer.echo(f"report: {report}")


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="methods, networks, sources, recipes, views, samplers, experiments or keys."
        ),
    ] = "recipes",
    words: Annotated[
        list[str] | None, typer.Argument(help="Only names that have each of these in them.")
    ] = None,
) -> None:
    """List what there is by name.

    longtailed list recipes cifar100 ldam
    """
    from longtailed.cli import catalogue
    from longtailed.cli.listing import print_names, print_recipes

    notes = catalogue.select(what, words or [])
    if what == "recipes":
        print_recipes(list(notes))
    else:
        print_names(notes, merge=what != "keys")
    if not words and what in catalogue.REST:
        typer.echo(catalogue.REST[what])


@app.command()
def evaluate(
    run_directory: Annotated[Path, typer.Argument(help="A finished run.")],
    data: Annotated[str | None, typer.Option(help="Other data with the same classes.")] = None,
    split: Annotated[str | None, typer.Option(help="Another split.")] = None,
    weights: WeightsOption = "last",
    root: RootOption = None,
    label_column: LabelColumnOption = None,
    image_column: ImageColumnOption = None,
    class_names: ClassNamesOption = None,
    verify: VerifyOption = None,
    groups: Annotated[
        Grouping | None, typer.Option(help="counts, terciles or auto (the recipe's).")
    ] = None,
    device: DeviceOption = "auto",
    per_class: Annotated[bool, typer.Option("--per-class", help="Also each class.")] = False,
) -> None:
    """Evaluate a finished run on its test split or on other data; prints JSON."""
    from longtailed.cli.console import print_uncovered
    from longtailed.report.strict_json import to_json
    from longtailed.runs import trained

    result = trained.evaluate(
        run_directory,
        data=data,
        split=split,
        weights=weights,
        device=device,
        groups=groups,
        root=root,
        label_column=label_column,
        image_column=image_column,
        class_names=class_names,
        verify=verify,
    )
    figures = dict(result.figures)
    print_uncovered(figures, to=sys.stderr)  # the figures alone go to the standard output
    if not per_class:
        figures.pop("per_class")
    typer.echo(to_json(figures, indent=2, ensure_ascii=False))


@app.command()
def predict(
    run_directory: Annotated[Path, typer.Argument(help="A finished run.")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    top: Annotated[int, typer.Option(help="Classes per image.", min=1)] = 1,
    weights: WeightsOption = "last",
    on_bad_image: Annotated[OnBadImage, typer.Option(help="error or skip.")] = "error",
    device: DeviceOption = "auto",
) -> None:
    """Predict the classes of image files; prints CSV: path, rank, class, probability."""
    from longtailed.runs import prediction

    found = prediction.predict(
        run_directory, images, top=top, weights=weights, device=device, on_bad_image=on_bad_image
    )
    writer = csv.writer(sys.stdout)
    for number, one in enumerate(found):
        if number == 0:  # only once the first prediction has succeeded
            writer.writerow(("path", "rank", "class", "probability"))
        for rank, (name, probability) in enumerate(one.classes, start=1):
            writer.writerow((one.path, rank, name, f"{probability:.4f}"))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs, side by side.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The HTML file.")] = None,
) -> None:
    """Write one self-contained HTML report of one run or of several side by side."""
    from longtailed.report import RunDirectory, write_report

    finished = [path for path in runs if RunDirectory(path).is_finished]
    if finished and len(finished) < len(runs):
        left_out = ", ".join(str(path) for path in runs if path not in finished)
        typer.echo(f"left out, as they hold no finished run: {left_out}", err=True)
        runs = finished
    if out is None and len(runs) > 1:
        out = Path("report.html")
    typer.echo(f"report: {write_report(runs, out)}")
