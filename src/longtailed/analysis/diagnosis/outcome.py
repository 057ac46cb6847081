"""The whole diagnosis of a run or of data: examined, advised on, and written to a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtailed.analysis.diagnosis.advice import Advice, advise
from longtailed.analysis.diagnosis.as_json import to_json
from longtailed.analysis.diagnosis.console import print_diagnosis
from longtailed.analysis.diagnosis.evidence import of_data, of_run
from longtailed.analysis.diagnosis.findings import Findings, examine
from longtailed.analysis.diagnosis.limits import limits
from longtailed.analysis.diagnosis.page import write_page
from longtailed.data import OnBadImage
from longtailed.errors import LongTailedError
from longtailed.report.run_directory import LAST, RunDirectory
from longtailed.training.checkpoint import write_json


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found, what to try first, what it cannot show, and where it was written."""

    findings: Findings
    advice: tuple[Advice, ...]
    limits: tuple[str, ...]
    json_path: Path
    page: Path

    def show(self) -> None:
        """Print it as a table."""
        print_diagnosis(self.findings, self.advice, self.limits, str(self.page))


def diagnose(
    subject: str | Path,
    *,
    data: str | None = None,
    split: str | None = None,
    weights: str = LAST,
    look_alikes_from: str | None = None,
    network: str | None = None,
    network_weights: str | None = None,
    on_bad_image: OnBadImage = "error",
    device: str = "auto",
    out: Path | str | None = None,
    **data_options: Any,
) -> Diagnosis:
    """Return the diagnosis of a finished run's directory, or of a data set, and write it.

    It writes `diagnosis.json` and `diagnosis.html` into `out`: by default the run's directory, or
    for data the folder `diagnosis-NAME`. `data`, `split`, `weights` and `data_options` are as in
    `longtailed.evaluate`; `look_alikes_from` (see `evidence.neutral_features`) concerns
    runs, `network` and `network_weights` (see `evidence.of_data`) data sets.

    Raises `LongTailedError` for everything wrong with the subject or the options.
    """
    home = Path(subject)
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise LongTailedError(f"{out} is a file; name a folder with --out.")
    if RunDirectory(home).holds_run:
        skips = None if on_bad_image == "error" else on_bad_image
        _refuse("a run", network=network, network_weights=network_weights, on_bad_image=skips)
        if data is None:
            _refuse("a run's own images", **data_options)
        evidence = of_run(
            home, data=data, split=split, weights=weights, look_alikes_from=look_alikes_from,
            device=device, **data_options,
        )  # fmt: skip
        folder = home if out is None else Path(out)
    else:
        _refuse_several(home)
        changed = None if weights == LAST else weights
        _refuse("data", data=data, weights=changed, look_alikes_from=look_alikes_from)
        evidence = of_data(
            str(subject), split=split, network=network, network_weights=network_weights,
            on_bad_image=on_bad_image, device=device, **data_options,
        )  # fmt: skip
        folder = Path(f"diagnosis-{home.stem}") if out is None else Path(out)
    findings = examine(evidence)
    advice, texts = advise(findings), limits(findings)
    json_path, page = _made(folder) / "diagnosis.json", folder / "diagnosis.html"
    write_json(json_path, to_json(findings, advice, texts))
    write_page(findings, advice, texts, page)
    return Diagnosis(findings, tuple(advice), tuple(texts), json_path, page)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LongTailedError(f"cannot use {folder}: {error.strerror}.") from None
    return folder


def _refuse_several(home: Path) -> None:
    """Raise `LongTailedError` if a folder holds runs, such as the seeds of one recipe."""
    runs = sorted(home.glob("*/recipe.json"))
    if runs:
        one = runs[0].parent
        raise LongTailedError(f"{home} holds {len(runs)} run(s); name one, such as {one}.")


def _refuse(subject: str, **options: Any) -> None:
    """Raise `LongTailedError` for an option that the subject has no use for."""
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise LongTailedError(f"{option} makes no sense for {subject}; leave it out.")
