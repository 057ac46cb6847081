"""The command `data`, which `cli` adds to the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longtailed.cli.commands import app
from longtailed.cli.options import (
    ClassNamesOption,
    Duplicates,
    ImageColumnOption,
    LabelColumnOption,
    OnBadImage,
    Profile,
    RootOption,
    SplitByOption,
    SplitByPatternOption,
)
from longtailed.errors import LongTailedError

if TYPE_CHECKING:
    from longtailed.data import ImageSet


@app.command()
def data(
    source: Annotated[str, typer.Argument(help="A source's name or a path.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    root: RootOption = None,
    imbalance: Annotated[
        float | None, typer.Option(help="Show it after subsampling to this ratio.")
    ] = None,
    profile: Annotated[Profile, typer.Option(help="exp or step.")] = "exp",
    label_column: LabelColumnOption = None,
    image_column: ImageColumnOption = None,
    class_names: ClassNamesOption = None,
    split_by: SplitByOption = None,
    split_by_pattern: SplitByPatternOption = None,
    duplicates: Annotated[
        Duplicates, typer.Option(help="exact, or near: also look-alikes, and across splits.")
    ] = "exact",
    on_bad_image: Annotated[OnBadImage, typer.Option(help="error or skip.")] = "error",
    download: Annotated[bool, typer.Option("--download", help="Permit fetching CIFAR.")] = False,
    thumbnails: Annotated[Path | None, typer.Option(help="Write a picture of examples.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Decode every image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a source: counts, imbalance, Gini, groups, duplicates, thumbnails.

    What could not be trained on, in train or in another split, is an error after the description.
    """
    from longtailed.cli.console import print_description, print_near_duplicates
    from longtailed.data import (
        available_splits,
        count_near_duplicates,
        describe_imageset,
        load_imageset,
        make_long_tailed,
        scan_images,
        thumbnail_grid,
    )
    from longtailed.data.loading import check_train_classes
    from longtailed.data.sources.files import drop_bad_images, inspect_images
    from longtailed.data.sources.names import canonical_split
    from longtailed.report.strict_json import to_json

    def load(
        name: str, split_by: str | None = None, split_by_pattern: str | None = None
    ) -> ImageSet:
        return load_imageset(
            source,
            name,
            root=root,
            label_column=label_column,
            image_column=image_column,
            class_names=class_names,
            on_bad_image=on_bad_image,
            download=download,
            split_by=split_by,
            split_by_pattern=split_by_pattern,
        )

    imageset = load(split, split_by, split_by_pattern)
    if imbalance is not None:
        imageset = make_long_tailed(imageset, imbalance, profile=profile)
    sizes, bad = inspect_images(imageset, full)
    if on_bad_image == "skip":
        imageset, bad = drop_bad_images(imageset, bad, "skip"), {}
    description = describe_imageset(imageset, full=full, inspected=(sizes, bad))
    columns = {"label_column": label_column, "image_column": image_column}
    splits = available_splits(source, **columns)
    own = canonical_split(split) or split
    if duplicates == "near":
        sets = {name: imageset if name == own else load(name) for name in splits}
        description["near_duplicates"] = count_near_duplicates(sets)
    if as_json:
        typer.echo(to_json(description, indent=2, ensure_ascii=False))
    else:
        print_description(description, imageset.class_names)
        if duplicates == "near":
            print_near_duplicates(description["near_duplicates"])
    if thumbnails is not None:
        if thumbnails.suffix.lower() not in {".png", ".jpg", ".jpeg", ".webp"}:
            raise LongTailedError(f"{thumbnails} must end in .png, .jpg or .webp.")
        thumbnail_grid(imageset, thumbnails)
        typer.echo(f"thumbnails: {thumbnails}")
    drop_bad_images(imageset, bad, "error")
    if own == "train":
        check_train_classes(imageset)
        for other in splits:
            if other != own:
                scan_images(load(other), on_bad_image)
