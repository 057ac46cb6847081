"""The command `bench`, which `cli` adds to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longtailed.cli.commands import app
from longtailed.cli.options import DeviceOption


@app.command()
def bench(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name, or key=value.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value changes to the recipe.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A source; default: random pixels.")] = None,
    method: Annotated[str | None, typer.Option(help="A method's name.")] = None,
    network: Annotated[str | None, typer.Option(help="A network's name.")] = None,
    variants: Annotated[
        str, typer.Option(help="Of bare,eager,captured,compiled,captured+compiled.")
    ] = "",
    rounds: Annotated[int, typer.Option(help="Turns of each variant.", min=1)] = 20,
    device: DeviceOption = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file of JSON lines to append to.")
    ] = None,
) -> None:
    """Measure a training step against a bare PyTorch loop and the device's floor.

    longtailed bench --network resnet32 --method ldam-drw --out benchmarks/results/step.jsonl
    """
    from longtailed.analysis.bench import steps as benchmark
    from longtailed.cli.console import print_bench

    assignments = list(overrides or [])
    if recipe is not None and "=" in recipe:
        assignments.insert(0, recipe)
        recipe = None
    result = benchmark.bench(
        recipe,
        data=data,
        method=method,
        network=network,
        overrides=assignments,
        variants=[name.strip() for name in variants.split(",") if name.strip()],
        rounds=rounds,
        device=device,
    )
    print_bench(result)
    if out is not None:
        benchmark.append(result, out)
        typer.echo(f"appended to {out}")
