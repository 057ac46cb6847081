"""How the compared runs were made and judged: the rows of the report's protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from longtailed.report.canvas import Styled
from longtailed.report.load import RunRecord
from longtailed.report.narrative import ratio, tested_images


def protocol(runs: Sequence[Styled]) -> list[tuple[str, tuple[str, ...]]]:
    """Return (property, its value in each run) of how the runs were made and judged."""
    rows: tuple[tuple[str, Callable[[RunRecord], str]], ...] = (
        ("Data", lambda run: str(run.manifest["source"])),
        ("Class sizes", _sizes),
        ("Held-out split", _held_out),
        ("Groups of images", _groups),
        ("Tested on", tested_images),
        ("Test images like a training image", _like_training),
        ("Method", _stages),
        ("Network", lambda run: str(run.manifest["network"])),
        ("Parameters", lambda run: f"{int(run.manifest['parameters']):,}"),
        ("Epochs", lambda run: str(run.epochs)),
        ("Seed", lambda run: str(run.seed)),
        ("Epoch chosen on", lambda run: run.chosen_on),
        ("Published", lambda run: ". ".join(run.published) or "nothing for these settings"),
        ("Groups by", lambda run: run.last.rule),
        ("Precision", _precision),
        ("Training time", lambda run: _duration(run.train_seconds)),
        ("Hardware", lambda run: str(run.manifest.get("hardware", "not recorded"))),
    )
    return [(name, tuple(value(styled.run) for styled in runs)) for name, value in rows]


def _precision(run: RunRecord) -> str:
    names = {"bf16": "bfloat16 network, float32 losses", "32": "float32"}
    used = str(run.manifest.get("precision", ""))
    return names.get(used, "not recorded")


def _sizes(run: RunRecord) -> str:
    asked = run.manifest.get("requested_imbalance")
    requested = "" if asked is None else f", requested {float(asked):,.4g}"
    return (
        f"{run.counts.max():,} to {run.counts.min():,} images, "
        f"profile {run.manifest.get('profile', 'natural')}, ratio {ratio(run)}{requested}"
    )


def _held_out(run: RunRecord) -> str:
    if "holdout" not in run.manifest["splits"]:
        return "none"
    return _images(run, "holdout", str(run.manifest.get("holdout", "")))


def _like_training(run: RunRecord) -> str:
    found = run.manifest.get("near_duplicates", "")
    if found is None:
        return "not counted: too many files"
    return f"{found['images']:,} of {found['of']:,}" if found else "not counted: the source's split"


def _groups(run: RunRecord) -> str:
    groups = run.manifest.get("groups")
    if groups is None:
        return "none given: images were divided one by one"
    alone = len(groups["single_group_classes"])
    tied = f"; {alone:,} class(es) have one group alone" if alone else ""
    largest = f"the largest of {groups['largest']:,} images"
    return f"{groups['number']:,} by {groups['by']}, {largest}, kept whole{tied}"


def _images(run: RunRecord, split: str, origin: str) -> str:
    images = f"{int(run.manifest['splits'][split]['images']):,} images"
    return f"{images} ({origin})" if origin else images


def _stages(run: RunRecord) -> str:
    return "; ".join(f"{s['method']} ({s.get('epochs', 0)} epochs)" for s in run.recipe["stages"])


def _duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
