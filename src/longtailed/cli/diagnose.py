"""The command `diagnose`, which `cli` adds to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longtailed.cli.commands import app
from longtailed.cli.options import (
    ClassNamesOption,
    DeviceOption,
    ImageColumnOption,
    LabelColumnOption,
    OnBadImage,
    RootOption,
    WeightsOption,
)


@app.command()
def diagnose(
    subject: Annotated[str, typer.Argument(metavar="RUN or DATA", help="A finished run, or data.")],
    data: Annotated[
        str | None, typer.Option(help="Of a run: other test data with the same classes.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Another split.")] = None,
    weights: WeightsOption = "last",
    look_alikes_from: Annotated[
        str | None,
        typer.Option(help="Of a run: pixels, start (what it began from), or a rotation/MoCo run."),
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="Of data: a timm name (resnet18), or pixels for none.")
    ] = None,
    network_weights: Annotated[
        str | None, typer.Option(help="Of data: a file of weights, or a run.")
    ] = None,
    root: RootOption = None,
    label_column: LabelColumnOption = None,
    image_column: ImageColumnOption = None,
    class_names: ClassNamesOption = None,
    on_bad_image: Annotated[OnBadImage, typer.Option(help="error or skip.")] = "error",
    device: DeviceOption = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of diagnosis.json and .html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which classes fail, and whether with scarcity or with similarity to which class.

    longtailed diagnose runs/photos-ldam-drw-resnet18-…/

    longtailed diagnose photos/ --network resnet18
    """
    from longtailed.analysis.diagnosis import diagnose as examine_subject

    result = examine_subject(
        subject,
        data=data,
        split=split,
        weights=weights,
        look_alikes_from=look_alikes_from,
        network=network,
        network_weights=network_weights,
        root=root,
        label_column=label_column,
        image_column=image_column,
        class_names=class_names,
        on_bad_image=on_bad_image,
        device=device,
        out=out,
    )
    if as_json:
        typer.echo(result.json_path.read_text(encoding="utf-8").rstrip())
    else:
        result.show()
