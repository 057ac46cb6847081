"""What a run writes as it goes: lines that survive a crash, TensorBoard, and the progress bar."""

from __future__ import annotations

import json
import sys

import pytest

from longtailed.errors import LongTailedError
from longtailed.training.journal import Journal, ProgressBar


def row(epoch: int, stage: int = 0, loss: float = 1.0):
    return {
        "stage": stage,
        "method": "ce",
        "epoch": epoch,
        "loss": loss,
        "terms": {"cross_entropy": loss},
        "holdout": {"balanced_accuracy": 0.25},
    }


def written(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [(line["stage"], line["epoch"], line["loss"]) for line in map(json.loads, lines)]


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    journal = Journal(tmp_path)
    for epoch in range(2):
        journal.write(row(epoch))
        assert len(written(tmp_path)) == epoch + 1
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1]) == row(1)


def test_beginning_drops_what_will_be_written_again(tmp_path):
    journal = Journal(tmp_path)
    for stage, epoch in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]:
        journal.write(row(epoch, stage))
    journal.begin(1, 1)
    assert written(tmp_path) == [(0, 0, 1.0), (0, 1, 1.0), (0, 2, 1.0), (1, 0, 1.0)]
    journal.write(row(1, stage=1, loss=0.5))
    assert written(tmp_path)[-1] == (1, 1, 0.5)
    journal.begin(0, 1)
    assert written(tmp_path) == [(0, 0, 1.0)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_beginning_drops_a_line_that_was_cut_off(tmp_path):
    journal = Journal(tmp_path)
    journal.write(row(0))
    half = json.dumps(row(1))[:30]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(half)
    journal.begin(0, 2)
    journal.write(row(1))
    assert written(tmp_path) == [(0, 0, 1.0), (0, 1, 1.0)]


def test_a_run_begins_with_no_lines(tmp_path):
    Journal(tmp_path).begin(0, 0)
    assert written(tmp_path) == []


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal(None)
    journal.begin(0, 0, tensorboard=True)
    journal.write(row(0))
    journal.close()
    assert list(tmp_path.iterdir()) == []


def scalars(directory, stage: int):
    """Return what TensorBoard shows of a stage: name -> [(epoch, value), ...]."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = events.EventAccumulator(str(directory / "tensorboard" / f"stage-{stage}"))
    board.Reload()
    return {
        name: [(event.step, event.value) for event in board.Scalars(name)]
        for name in board.Tags()["scalars"]
    }


def write_with_tensorboard(directory, stage: int, *rows: dict) -> None:
    journal = Journal(directory)
    journal.begin(stage, rows[0]["epoch"], tensorboard=True)
    for one in rows:
        journal.write(one)
    journal.close()


def test_tensorboard_gets_every_figure_of_each_stage(tmp_path):
    write_with_tensorboard(tmp_path, 0, row(0, loss=2.0), row(1, loss=1.5))
    write_with_tensorboard(tmp_path, 1, row(0, stage=1, loss=0.5))
    shown = scalars(tmp_path, 0)
    assert shown.keys() == {"loss", "terms/cross_entropy", "holdout/balanced_accuracy"}
    assert shown["loss"] == [(0, 2.0), (1, 1.5)]
    assert scalars(tmp_path, 1)["loss"] == [(0, 0.5)]


def test_tensorboard_shows_a_resumed_run_as_if_it_had_never_stopped(tmp_path):
    write_with_tensorboard(tmp_path, 0, row(0, loss=2.0), row(1, loss=1.5), row(2, loss=1.25))
    write_with_tensorboard(tmp_path, 0, row(1, loss=1.0))
    assert scalars(tmp_path, 0)["loss"] == [(0, 2.0), (1, 1.0)]
    assert written(tmp_path) == [(0, 0, 2.0), (0, 1, 1.0)]


def test_tensorboard_is_written_only_when_asked(tmp_path):
    journal = Journal(tmp_path)
    journal.begin(0, 0)
    journal.write(row(0))
    journal.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_that_is_not_installed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(LongTailedError, match="TensorBoard is not installed; run: pip install"):
        Journal(tmp_path).begin(0, 0, tensorboard=True)


def train_two_steps(enabled: bool) -> list[bool]:
    with ProgressBar(total_steps=4, done=2, label="ldam-drw", enabled=enabled) as bar:
        asked = [bar.advance(), bar.advance()]
        bar.show("ldam 1.234")
        bar.print("epoch 1/1  loss 1.2340")
    return asked


def test_the_bar_says_nothing_where_there_is_no_terminal(capsys, monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    assert train_two_steps(enabled=True) == [False, False]
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def terminal(monkeypatch):
    """Make rich take the captured output for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(ProgressBar, "refresh_seconds", 60)


@pytest.mark.usefixtures("terminal")
def test_the_bar_shows_steps_and_figures_on_a_terminal(capsys):
    assert train_two_steps(enabled=True) == [True, False]  # not every step reads figures
    out, err = capsys.readouterr()
    assert out == ""
    for text in ("ldam-drw", "4/4", "ldam 1.234", "epoch 1/1  loss 1.2340"):
        assert text in err


@pytest.mark.usefixtures("terminal")
def test_the_bar_can_be_switched_off(capsys):
    assert train_two_steps(enabled=False) == [False, False]
    assert capsys.readouterr() == ("", "")
