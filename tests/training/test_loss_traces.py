"""Every method's losses, step by step, are those that were recorded.

Each trace is a short training on bundled digits in float64: five epochs, the rate drops at the
fourth, what a method defers begins at the fourth or fifth. A change of structure must not move a
trace. `python tests/test_loss_traces.py` records the cases that have none yet; to record one anew,
which needs a reason, remove it from the file first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from longtailed.data import ImageSet, Splits, load_imageset, parse_view
from longtailed.methods import METHODS, build_method, method_class
from longtailed.nn import build_network
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule

RECORDED = Path(__file__).parents[1] / "golden" / "loss_traces.json"
COUNTS = [16, 12, 9, 7, 5, 4, 3, 2, 2, 2]  # of digits 0..9; the other splits have 4 of each
OPTIONS = FitOptions(
    epochs=5,
    batch_size=12,
    optimizer=Optimizer(lr=0.02, weight_decay=5e-4),
    schedule=Schedule(kind="step", warmup=1, milestones=(3,), gamma=0.1),
)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS},
    "moco": ("moco", {"queue_size": 48}),
    # Features that are kept are float32, so a trace of them would not be exact.
    "crt": ("crt", {"features": "fresh"}),
    "crt, batch statistics": ("crt", {"features": "fresh", "batch_norm": "train"}),
    "lws": ("lws", {"features": "fresh"}),
    "isda, diagonal": ("isda", {"covariance": "diagonal"}),
    "metasaug, diagonal": ("metasaug", {"covariance": "diagonal"}),
    "metasaug, normalised": ("metasaug", {"meta": "normalized"}),
    "metasaug, classifier alone": ("metasaug", {"start": 0, "trainable": "classifier"}),
    "risda, graph=best": ("risda", {"graph": "best"}),
    "risda, large": (
        "risda",
        {
            "alpha": 0.0,
            "beta": 7.5,
            "covariance": "diagonal",
            "mean_shift": "off",
            "graph": "last",
            "freeze_start": 0.9,
        },
    ),
    "risda, once and exact": (
        "risda",
        {"mean_shift": "paper", "rectify": True, "persist": False, "decimals": None},
    ),
    "rsg, legacy": ("rsg", {"layout": "legacy"}),
    "rsg-ldam-drw, legacy": ("rsg-ldam-drw", {"layout": "legacy"}),
    "rsg-ldam-drw, padded": ("rsg-ldam-drw", {"padded": True}),
    "rsg-ldam-drs, large": (
        "rsg-ldam-drs",
        {"layout": "legacy", "max_margin": 0.3, "sampler_start": 4, "generate_start": 4},
    ),
    "concutmix, tiled": ("concutmix", {"prototype_source": "feature_rows_tiled"}),
    "concutmix, ours": ("concutmix", {"prior": "mixed", "per_sample": True, "normalizer": "max"}),
}


class Float64Splits(Splits):
    """Splits whose images are float64."""

    def prepare(self, *given: Any) -> tuple[torch.Tensor, ...]:
        return tuple(images.double() for images in super().prepare(*given))


def make_splits() -> Splits:
    digits = load_imageset("digits", "train")
    members = [np.flatnonzero(digits.labels == label) for label in range(10)]

    def part(counts: list[int], start: int) -> ImageSet:
        chosen = [m[start : start + n] for m, n in zip(members, counts, strict=True)]
        return digits.subset(np.concatenate(chosen))

    views = {
        "standard": "pad_crop(1)",
        "strong": "pad_crop(1), cutout(2)",
        "sim": "pad_crop(2), grayscale(0.2)",
        "test": "",
    }
    return Float64Splits(
        sets={
            "train": part(COUNTS, 0),
            "meta": part([4] * 10, 20),
            "holdout": part([4] * 10, 24),
            "test": part([4] * 10, 28),
        },
        views={name: parse_view(text) for name, text in views.items()},
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def trace(name: str, options: dict[str, Any], fabric: Fabric) -> dict[str, list[float]]:
    """Return each loss term at each step; of a method without steps, scores of the test images."""
    cls = method_class(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)  # in which normal numbers are the same everywhere
        try:
            network = build_network("resnet8", 10, head=cls.head or "linear", width=0.5)
            method = build_method(name, network, COUNTS, **options)
        finally:
            torch.set_default_dtype(torch.float32)
    splits, found = make_splits(), {}

    def note(_module: Any, _inputs: Any, terms: dict[str, torch.Tensor]) -> None:
        for term, value in terms.items():
            assert value.dtype == torch.float64
            found.setdefault(term, []).append(value.item())

    method.double().register_forward_hook(note)
    steps = OPTIONS if method.trains else OPTIONS.model_copy(update={"epochs": 0})
    fit(method, Job(fabric, splits, steps, show_progress=False))
    if method.trains:
        return found
    with torch.no_grad():
        scores = method.eval().predict(next(splits.scan("test")).images[0])
    return {"scores of an image of each class": scores[::4].flatten().tolist()}


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_that_were_recorded(case, fabric):
    recorded = json.loads(RECORDED.read_text())[case]
    found = trace(*CASES[case], fabric)
    assert found.keys() == recorded.keys()
    for term, values in recorded.items():
        np.testing.assert_allclose(found[term], values, rtol=1e-10, atol=1e-12, err_msg=term)


def test_every_record_has_a_case():
    assert json.loads(RECORDED.read_text()).keys() == CASES.keys()


def record() -> None:
    """Record the cases that have no trace yet."""
    traces = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    missing = [case for case in CASES if case not in traces]
    traces |= {case: trace(*CASES[case], fabric) for case in missing}
    lines = [f"{json.dumps(case)}: {json.dumps(traces[case])}" for case in CASES]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"recorded: {', '.join(missing) or 'nothing new'}")


if __name__ == "__main__":
    record()
