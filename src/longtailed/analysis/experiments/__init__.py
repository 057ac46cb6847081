"""Experiments: claims of arXiv 2107.03758 on sample number and category similarity, tested.

`EXPERIMENTS` maps each name to its grid and what it concludes; `run_experiment` runs
one.
"""

from __future__ import annotations

from typing import Any

from longtailed.analysis.experiments.definition import Experiment
from longtailed.analysis.experiments.intervals import Conclusion, Interval, t_interval
from longtailed.analysis.experiments.runner import FinishedExperiment, run_grid
from longtailed.analysis.experiments.similar_samples import SIMILAR_SAMPLES
from longtailed.analysis.experiments.starts import ARCHITECTURES, PRE_TRAINING
from longtailed.analysis.experiments.theory import boundary_shift, boundary_variance
from longtailed.analysis.experiments.toy_cases import TOY_CASE_1, TOY_CASE_2
from longtailed.data import append_similar_samples, make_similar_samples, mix_similar_samples
from longtailed.errors import unknown_name

__all__ = [
    "EXPERIMENTS",
    "Conclusion",
    "Experiment",
    "FinishedExperiment",
    "Interval",
    "append_similar_samples",
    "boundary_shift",
    "boundary_variance",
    "make_similar_samples",
    "mix_similar_samples",
    "run_experiment",
    "t_interval",
]

EXPERIMENTS: dict[str, Experiment] = {
    "toy-case-1": TOY_CASE_1,
    "toy-case-2": TOY_CASE_2,
    "similar-samples": SIMILAR_SAMPLES,
    "pre-training": PRE_TRAINING,
    "architectures": ARCHITECTURES,
}


def run_experiment(name: str, **options: Any) -> FinishedExperiment:
    """Return the finished experiment called `name`; `options` are those of `runner.run_grid`.

    >>> from longtailed.analysis.experiments import run_experiment
    >>> found = run_experiment("toy-case-1", seeds=range(3))  # doctest: +SKIP
    >>> [one.sentence for one in found.conclusions]  # doctest: +SKIP

    Raises `LongTailedError` for an unknown name, and see there.
    """
    if name not in EXPERIMENTS:
        raise unknown_name("experiment", name, EXPERIMENTS, listing="experiments")
    return run_grid(name, EXPERIMENTS[name], **options)
