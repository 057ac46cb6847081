"""Options that several commands share, with their types and help."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Duplicates = Literal["exact", "near"]
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
SplitByOption = Annotated[
    str | None, typer.Option(help="Column of the group (patient, track) that stays together.")
]
SplitByPatternOption = Annotated[
    str | None, typer.Option(help="Regular expression that finds the group in file names.")
]
RootOption = Annotated[str | None, typer.Option(help="Folder that a list's paths start from.")]
VerifyOption = Annotated[
    Literal["auto", "content"] | None,
    typer.Option(help="content: read every image to see whether a run's data has changed."),
]
