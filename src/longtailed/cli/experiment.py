"""The command `experiment`, which `cli` adds to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longtailed.cli.commands import app
from longtailed.cli.options import DeviceOption


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="See `longtailed list experiments`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value changes to every run.")
    ] = None,
    size: Annotated[
        str, typer.Option(help="small (digits, minutes) or paper (CIFAR, 200 epochs).")
    ] = "small",
    coarse: Annotated[bool, typer.Option("--coarse", help="Fewer points of the paper's grid.")] = (
        False
    ),
    data: Annotated[str | None, typer.Option(help="A source's name or a path.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every point.")] = "0-4",
    jobs: Annotated[int, typer.Option(help="Runs trained at the same time.", min=1)] = 1,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The directory.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train the grid of an experiment and say what may be concluded; run again to resume.

    longtailed experiment toy-case-1 --jobs 2

    longtailed experiment similar-samples --size paper --coarse --seeds 0-2 download=true
    """
    from longtailed.analysis.experiments import run_experiment
    from longtailed.cli.console import print_experiment
    from longtailed.runs.seeds import parse_seeds

    finished = run_experiment(
        name,
        size=size,
        coarse=coarse,
        data=data,
        seeds=parse_seeds(seeds),
        jobs=jobs,
        overrides=overrides or [],
        out=out,
        device=device,
    )
    print_experiment(finished)
    typer.echo(f"results and chart: {finished.directory}")
