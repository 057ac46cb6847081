"""What the report says in sentences: headline, summary, warnings, how to read it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from longtailed.report.canvas import Styled
from longtailed.report.load import RunRecord
from longtailed.report.tables import seed_groups


def percent(rate: float | None, digits: int = 1) -> str:
    """Return a rate in 0..1 as text with its unit, "absent" for None."""
    return "absent" if rate is None else f"{100 * rate:.{digits}f}\N{NO-BREAK SPACE}%"


def headline(runs: Sequence[Styled]) -> str:
    """Return one sentence with method, network, data and the last epoch's main figure."""
    first = runs[0].run
    where = f"{_join(_distinct(runs, _network))} on {_join(_distinct(runs, _source))}"
    groups = seed_groups(runs)
    if len(runs) == 1:
        few = first.last.rates["few"]
        rarest = "" if few is None else f", {percent(few)} on the few-shot classes"
        return (
            f"{_method(first)} with {where}: "
            f"{percent(first.last.rates['balanced_accuracy'])} balanced accuracy{rarest}"
        )
    rates = _balanced(runs)
    if len(groups) == 1:
        mean, deviation = statistics.fmean(rates), statistics.stdev(rates)
        return (
            f"{_method(first)} with {where}, {len(runs)} seeds: "
            f"{100 * mean:.1f} ± {100 * deviation:.1f}\N{NO-BREAK SPACE}% balanced accuracy"
        )
    methods = _distinct(runs, _method)
    subject = f"{len(runs)} runs" if len(methods) == 1 else _join(methods)
    low, high = (percent(rate) for rate in (min(rates), max(rates)))
    span = high if low == high else f"{100 * min(rates):.1f} to {high}"
    return f"{subject} with {where}: {span} balanced accuracy"


def _balanced(runs: Sequence[Styled]) -> list[float]:
    return [float(styled.run.last.rates["balanced_accuracy"] or 0) for styled in runs]


def _method(run: RunRecord) -> str:
    return " then ".join(run.methods)


def _network(run: RunRecord) -> str:
    return str(run.manifest["network"])


def _source(run: RunRecord) -> str:
    return str(run.manifest["source"])


def _split(name: str) -> Callable[[RunRecord], str]:
    return lambda run: str(run.manifest["splits"][name])


def _distinct(runs: Sequence[Styled], value: Callable[[RunRecord], str]) -> list[str]:
    return list(dict.fromkeys(value(styled.run) for styled in runs))


def _join(names: Sequence[str]) -> str:
    if len(names) > 4:
        names = [*names[:3], f"{len(names) - 3} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def summary(runs: Sequence[Styled]) -> list[str]:
    """Return the sentences under the headline: the data, then the result in plain words."""
    first = runs[0].run
    train = first.manifest["splits"]["train"]
    data = (
        f"Trained on {int(train['images']):,} images of {len(first.counts):,} classes, "
        f"the largest with {first.counts.max():,} images and the smallest with "
        f"{first.counts.min():,} (imbalance ratio {ratio(first)}); "
        f"tested on {tested_images(first)}."
    )
    if len(_distinct(runs, _split("train"))) > 1:
        data = f"Run A: {data[0].lower()}{data[1:]} The training images of other runs differ."
    return [data, _single_result(first) if len(runs) == 1 else _compared_result(runs)]


def sizes_of(runs: Sequence[Styled]) -> str:
    """Return whose class sizes one column can show: " of run A" if other runs have others."""
    counts = {tuple(styled.run.counts) for styled in runs}
    return "" if len(counts) == 1 else f" of run {runs[0].key}"


def _single_result(run: RunRecord) -> str:
    last = run.last
    images, classes = percent(last.rates["top1"]), percent(last.rates["balanced_accuracy"])
    mean = "" if images == classes else f"; averaged over classes, {classes}"
    return (
        f"After the last epoch it names {images} of the test images correctly{mean}. "
        f"The worst class, {run.class_names[last.worst_class]}, reaches "
        f"{percent(last.rates['worst'])}.{_uncovered(run)}"
    )


def _uncovered(run: RunRecord) -> str:
    """Return a sentence on the classes that no figure covers, if there are any."""
    rates = zip(run.class_names, run.last.per_class, strict=True)
    absent = [name for name, rate in rates if rate is None]
    them = "it" if len(absent) == 1 else "them"
    return (
        f" No figure covers {_join(absent)}: there are no test images of {them}." if absent else ""
    )


def _compared_result(runs: Sequence[Styled]) -> str:
    groups = seed_groups(runs)
    if len(groups) == 1:
        rates = _balanced(runs)
        return (
            f"One recipe, trained {len(runs)} times with different seeds: balanced accuracy "
            f"after the last epoch lies between {percent(min(rates))} and {percent(max(rates))}."
        )
    means = [statistics.fmean(_balanced(group)) for group in groups]
    best, second = sorted(range(len(groups)), key=means.__getitem__, reverse=True)[:2]
    base = 0 if best else second
    top, name = percent(means[best]), _group_name(groups[best])
    if percent(means[second]) == top:
        names = " and ".join(_group_name(groups[i]) for i in sorted((best, second)))
        return f"{names} share the highest balanced accuracy after the last epoch, {top}."
    return (
        f"{name} has the highest balanced accuracy after the last epoch, {top}: "
        f"{100 * (means[best] - means[base]):.1f} points above {_group_name(groups[base])}, "
        f"{'the first run' if best else 'the next'}, which has {percent(means[base])}."
    )


def _group_name(group: Sequence[Styled]) -> str:
    if len(group) == 1:
        return f"{group[0].key} ({group[0].label})"
    return f"{group[0].run.name} (mean of {', '.join(styled.key for styled in group)})"


def ratio(run: RunRecord) -> str:
    """Return the imbalance ratio as trained, as short as it is exact."""
    value = run.manifest["imbalance_ratio"]
    if value is None or not math.isfinite(value):
        return "undefined, a class is empty"
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def unlike(runs: Sequence[Styled]) -> list[str]:
    """Return what, apart from the method, is not the same in all compared runs.

    Parameters count from 1 % on, since a method may bring a head of its own.
    """
    checks: tuple[tuple[str, Callable[[RunRecord], str]], ...] = (
        ("the test images", _split("test")),
        ("the training images", _split("train")),
        ("the network", _network),
        ("the number of epochs", lambda run: str(run.epochs)),
        ("the rule of the many, medium and few groups", lambda run: run.last.rule),
    )
    found = [what for what, value in checks if len(_distinct(runs, value)) > 1]
    parameters = [int(styled.run.manifest["parameters"]) for styled in runs]
    if max(parameters) > 1.01 * min(parameters):
        found.append("the number of parameters")
    return found


def tested_images(run: RunRecord) -> str:
    """Return how many images the run was tested on, and which."""
    images = f"{int(run.manifest['splits']['test']['images']):,}"
    where = _tested_on(run)
    return f"{images} {where}" if where.startswith("images ") else f"{images} images of {where}"


def _tested_on(run: RunRecord) -> str:
    return run.last.tested_on.replace(" %", "\N{NO-BREAK SPACE}%")


def tested_on(runs: Sequence[Styled]) -> str:
    """Return what the figures are on, the same for all runs or with the runs of each."""
    found = _distinct(runs, _tested_on)
    if len(found) == 1:
        return found[0]
    keys = [[s.key for s in runs if _tested_on(s.run) == text] for text in found]
    return _join([f"{text} in {_those(k)}" for text, k in zip(found, keys, strict=True)])


def _those(keys: Sequence[str]) -> str:
    return f"run {keys[0]}" if len(keys) == 1 else f"runs {_join(keys)}"


def leaks(runs: Sequence[Styled]) -> list[str]:
    """Return a sentence for each run some of whose test images look like training images."""
    sentences = []
    for styled in runs:
        found = styled.run.manifest.get("near_duplicates")
        if found and found["images"]:
            subject = f"Of run {styled.key}, " if len(runs) > 1 else ""
            names = " and ".join(name for _, name, _ in found["examples"][0])
            sentences.append(
                f"{subject}{found['images']:,} of the {found['of']:,} test images look almost the "
                f"same as a training image, such as {names}."
            )
    return sentences


def seen_before(runs: Sequence[Styled]) -> list[str]:
    """Return a sentence for each run whose initial weights have learnt from its other images."""
    sentences = []
    for styled in runs:
        seen = styled.run.manifest.get("seen_by_initial_weights")
        if seen:
            parts = [f"{images:,} of its {name} images" for name, images in seen.items()]
            sentences.append(
                f"The initial weights of run {styled.key} come from a run that was trained on "
                f"{_join(parts)}, so what these say of it is too good."
            )
    return sentences


def noise_note(runs: Sequence[Styled]) -> str:
    """Return how far chance alone moves the first run's top-1: 2 sqrt(p (1 - p) / N), in points."""
    evaluation = runs[0].run.last
    whose = "top-1" if len(runs) == 1 else f"the top-1 of run {runs[0].key}"
    p = evaluation.rates["top1"] or 0.0
    points = 200 * math.sqrt(p * (1 - p) / max(evaluation.images, 1))
    return (
        f"With {evaluation.images:,} test images, {whose} carries about ±{points:.1f} points of "
        "sampling error (two standard errors)"
    )


def seed_note(runs: Sequence[Styled]) -> str:
    """Return what the number of seeds allows to say."""
    single = [group[0].key for group in seed_groups(runs) if len(group) == 1]
    if not single:
        return "The standard deviation over seeds shows how much training itself varies."
    if len(runs) == 1:
        return "This is one seed: how much training itself varies is unknown."
    return (
        f"One seed each for {', '.join(single)}: how much training itself varies is unknown, so "
        "read small differences as ties."
    )
