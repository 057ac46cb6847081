"""Options that several commands share, with their types and help."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Profile = Literal["exp", "step"]
OnBadImage = Literal["error", "skip"]
Grouping = Literal["counts", "terciles", "auto"]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:K.")]
WeightsOption = Annotated[str, typer.Option(help="last, holdout-chosen or best-test.")]
LabelColumnOption = Annotated[str | None, typer.Option(help="Label column of a table.")]
ImageColumnOption = Annotated[str | None, typer.Option(help="Image column of a table.")]
ClassNamesOption = Annotated[
    str | None, typer.Option(help="Names, comma-separated, or a file with one a line.")
]
RootOption = Annotated[str | None, typer.Option(help="Folder that a list's paths start from.")]
VerifyOption = Annotated[
    Literal["auto", "content"] | None,
    typer.Option(help="content: read every image to see whether a run's data has changed."),
]
