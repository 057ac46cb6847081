"""What the command line prints: tables of figures, descriptions and names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longtailed.analysis.experiments.intervals import Interval
from longtailed.analysis.experiments.results import heads, rank1, tail
from longtailed.analysis.experiments.runner import FinishedExperiment
from longtailed.data.sources.names import quoted
from longtailed.methods import method_class
from longtailed.runs.run import FinishedRun

MOST_CLASSES, BAR_WIDTH = 24, 40
UNKNOWN = "what was not recorded"  # by an earlier version


def print_results(finished: Sequence[FinishedRun]) -> None:
    """Print the figures of finished runs as a table; accuracies in percent."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("run and epoch", overflow="fold")
    for column in ("top-1", "bal.", "many", "med.", "few", "worst", "ECE"):
        table.add_column(column, justify="right", no_wrap=True)
    names = _names(finished)
    for one, title in zip(finished, names, strict=True):
        table.add_row(title, style="bold")
        for name, figures in one.results["evaluations"].items():
            groups = figures["groups"]
            row = [
                figures["top1"],
                figures["balanced_accuracy"],
                *(groups[group] for group in ("many", "medium", "few")),
                figures["worst_class"]["accuracy"],
                figures["ece"],
            ]
            epoch = one.results["epochs"][name] + 1
            table.add_row(f"  {name}, {epoch}", *map(_percent, row))
    Console().print(table)
    _print_once(finished, lambda one: f"Percent on {_tested_on(one)}.")
    _print_once(finished, _leak)
    print("bal. is the mean over classes, ECE calibration error.")
    _print_once(finished, lambda one: f"Epoch chosen on {one.results.get('chosen_on', UNKNOWN)}.")
    print("Groups: " + finished[0].results["evaluations"]["last"]["groups"]["rule"] + ".")
    for one in finished:
        print_uncovered(one.results["evaluations"]["last"])
        if all(method_class(stage.method).label_free for stage in one.recipe.stages):
            print(
                f"No stage of {one.recipe.name} trains a classifier: these are the accuracies of "
                f"the one that it began with. Go on with network.init_from={one.directory}."
            )


def _names(finished: Sequence[FinishedRun]) -> list[str]:
    """Return a name for each run, with its seed where several have one name."""
    names = [one.recipe.name for one in finished]
    return [
        f"{name}, seed {one.recipe.seed}" if names.count(name) > 1 else name
        for name, one in zip(names, finished, strict=True)
    ]


def print_uncovered(figures: Mapping[str, Any], to: TextIO | None = None) -> None:
    """Print which classes have no test images and so no part in the figures, if there are any."""
    absent = figures.get("classes_without_images")
    if absent:
        classes = f"{len(absent)} {'class' if len(absent) == 1 else 'classes'}"
        print(
            f"No test images of {classes} ({quoted(absent)}): the figures do not cover them.",
            file=to,
        )


def _tested_on(run: FinishedRun) -> str:
    return str(run.results["evaluations"]["last"].get("tested_on", "the test images"))


def _leak(run: FinishedRun) -> str:
    found = run.results.get("near_duplicates", {})
    if found is None:
        return "They are too many files to count those that look like a training image."
    if not found or not found["images"]:
        return ""
    return (
        f"{found['images']} of these {found['of']} images look almost the same as a training "
        "image: the figures are too good."
    )


def _print_once(finished: Sequence[FinishedRun], sentence: Callable[[FinishedRun], str]) -> None:
    """Print what is to be said of each run, with its name unless all runs share it."""
    texts = [sentence(one) for one in finished]
    if len(set(texts)) > 1:
        pairs = zip(_names(finished), texts, strict=True)
        texts = [text and f"{name}: {text}" for name, text in pairs]
    for text in filter(None, dict.fromkeys(texts)):
        print(text)


def print_spread(figures: Mapping[str, tuple[float, float | None]], runs: int) -> None:
    """Print the mean and standard deviation of each figure over runs, in percent."""
    print(f"Mean ± standard deviation of {runs} runs, last epoch, percent:")
    for name, (mean, deviation) in figures.items():
        shown = "" if deviation is None else f" ± {100 * deviation:.2f}"
        print(f"  {name.replace('_', ' '):18}{100 * mean:6.2f}{shown}")


def print_bench(result: Mapping[str, Any]) -> None:
    """Print what `bench` measured as a table, with the floor that it is compared to."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    columns = {
        "variant": None,
        "ms/step": "ms_per_step",
        "images/s": "images_per_second",
        "/ bare": "ratio_to_bare",
        "data": "data_share",
        "of floor": "fraction_of_floor",
        "ops/step": "operations_per_step",
        "launches/step": "launches_per_step",
        "MiB": "peak_memory_mib",
    }
    rows = result["variants"]
    shown = {
        title: key
        for title, key in columns.items()
        if key is None or any(key in row for row in rows.values())
    }
    for title in shown:
        table.add_column(title, justify="left" if title == "variant" else "right", no_wrap=True)
    for name, row in rows.items():
        cells = [_cell(key, row.get(key)) for key in shown.values() if key is not None]
        table.add_row(name, *cells)
    Console().print(table)
    floor, hardware = result["floor"], result["hardware"]
    threads = f"{result['threads']} thread{'' if result['threads'] == 1 else 's'}"
    print(
        f"{result['network']}, {result['method']}, batch {result['batch_size']}, "
        f"{result['image_size']} px, precision {result['precision']} on "
        f"{hardware['gpu'] or hardware['cpu']}, {threads}."
    )
    print(
        f"Floor {floor['ms_per_step']:.3g} ms: {floor['gflop_per_step']:.4g} GFLOP at "
        f"{floor['measured_tflop_per_second']:.3g} TFLOP/s, or "
        f"{floor['least_traffic_mb_per_step']:.4g} MB at {floor['measured_gb_per_second']:.3g} "
        "GB/s (the best matrix product and copy of all rounds)."
    )


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key in {"data_share", "fraction_of_floor"}:
        return f"{100 * value:.1f} %"
    return f"{value:,.3f}" if key == "ratio_to_bare" else f"{value:,.4g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def print_description(description: Mapping[str, Any], class_names: Sequence[str]) -> None:
    """Print what `describe_imageset` found, and the largest and smallest classes."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in description.items():
        if key not in _SHOWN_APART:
            table.add_row(key.replace("_", " "), escape(_described(key, value)))
    Console().print(table)
    if "groups" in description:
        _print_groups(description["groups"])
    counts = description["counts"]
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    if len(order) > MOST_CLASSES:
        order = [*order[: MOST_CLASSES // 2], *order[-MOST_CLASSES // 2 :]]
    widest = max(counts)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for c in order:
        bar = "█" * max(1, round(BAR_WIDTH * counts[c] / widest)) if counts[c] else ""
        table.add_row(escape(class_names[c]), f"{counts[c]:,}", bar)
    Console().print(table)


_SHOWN_APART = {
    "counts", "read_as", "left_out", "unreadable_examples", "groups", "near_duplicates",
}  # fmt: skip


def _described(key: str, value: Any) -> str:
    if key == "duplicates" and value is None:
        return "not counted in more than 20,000 files; --full counts them"
    if key == "duplicates":
        return _pairs(value["within_class"], value["across_classes"])
    if key == "checked" and value != "every image":
        return f"{value}; --full decodes every image"
    if key in {"smallest_image", "largest_image"} and value is not None:
        return " x ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _pairs(within: int, across: int) -> str:
    if not within + across:
        return "none"
    wrong = "; at least one label of each is wrong, --duplicates near names them" if across else ""
    return f"pairs within a class: {within:,}, across classes: {across:,}{wrong}"


def _print_groups(groups: Mapping[str, Any]) -> None:
    names = groups["single_group_classes"]
    print(
        f"Groups: {groups['number']:,}, the largest of {groups['largest']:,} images; "
        f"{groups['in_several_classes']:,} have images of several classes."
    )
    if names:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        print(f"Classes of one group alone, of which no image can be held out: {shown}.")


def print_near_duplicates(found: Mapping[str, Any]) -> None:
    """Print what `count_near_duplicates` found, with its examples."""
    print(
        f"Near-duplicates: {found['images']:,} images look almost the same as another one; "
        f"{found['within_class']:,} as one of their class, {found['across_classes']:,} as one of "
        "another class (one label may be wrong)."
    )
    for splits, images in found["across_splits"].items():
        later, earlier = splits.split(" in ")
        print(f"  {images:,} {later} images look almost the same as one in {earlier}.")
    for pair in found["examples"]:
        shown = [escape(f"{name} ({split}, {label})") for split, name, label in pair]
        Console().print("  " + " ~ ".join(shown), highlight=False, soft_wrap=True)


def print_names(notes: Mapping[str, str]) -> None:
    """Print names with a note about each, once for all names that share it."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    sharing: dict[str, list[str]] = {}
    for name, note in notes.items():
        sharing.setdefault(note, []).append(name)
    for note, names in sharing.items():
        table.add_row("\n".join(names), escape(note))
    Console().print(table)


def print_experiment(finished: FinishedExperiment) -> None:
    """Print accuracies of each point of the grid with their intervals, and the conclusions."""
    results = finished.results
    settings = list(dict.fromkeys(key for point in results.points for key in point.settings))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for setting in settings:
        table.add_column(setting.replace("_", " "), overflow="fold")
    for column in ("rank-1", "all but last", "last class"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in results.points:
        shown = [str(point.settings[setting]) for setting in settings]
        found = [results.interval(point, measure) for measure in (rank1, heads, tail)]
        table.add_row(*shown, *map(_spread, found))
    Console().print(table)
    content = finished.content
    print(f"Percent on {content['tested_on']} after the last epoch; {content['interval']}.")
    for conclusion in finished.conclusions:
        print(f"- {conclusion.sentence}")


def _spread(found: Interval) -> str:
    if found.high is None:
        return f"{found.mean:.1f}"
    return f"{found.mean:.1f} ± {found.high - found.mean:.1f}"
