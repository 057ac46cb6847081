from __future__ import annotations

import numpy as np
import pytest

from longtailed.data.sources.columns import CellError
from longtailed.data.sources.labels import (
    Labels,
    join_labels,
    label_notes,
    name_classes,
    number_labels,
    whole_floats,
)
from longtailed.errors import LongTailedError


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ("2 0 1 1", ("0", "1", "2")),
        ("10 9 8 7 6 5 4 3 2 1", (*"123456789", "10")),
        ("dog ant Bee", ("Bee", "ant", "dog")),
        ("2435099 1392475000002 2882316", ("2435099", "2882316", "1392475000002")),
        ("007 010 002", ("002", "007", "010")),
        ("30 50 stop", ("30", "50", "stop")),
        ("0 1 01", ("0", "01", "1")),
        ("10-19 0-9 20-29", ("0-9", "10-19", "20-29")),
        ("none some", ("none", "some")),
    ],
)
def test_classes_are_named_as_the_labels_are_written(texts, names):
    assert name_classes(Labels.of(texts.split()), "x") == names


@pytest.mark.parametrize("text", ["-1", "1.5", "nan", "N/A", "0;", "1e5", "dog", "9" * 10])
def test_a_label_that_is_no_class_is_named(text):
    with pytest.raises(CellError) as error:
        name_classes(Labels.of(["0", "1", text]), "x")
    assert error.value.text == text


def test_gaps_in_numbers_are_empty_classes():
    with pytest.raises(LongTailedError, match=r"x has 2 empty classes \(labels run up to 3.*1, 2"):
        name_classes(Labels.of(["0", "3"]), "x")
    with pytest.raises(LongTailedError, match=r"without 2, 3, 4, 5, 6, \.\.\."):
        name_classes(Labels.of(["1", "999999999"]), "x")


def test_names_match_by_name_and_numbers_by_a_code_book_only():
    names = ("cat", "ant", "dog")
    assert number_labels(Labels.of(["dog", "cat"]), names, "train", False).tolist() == [2, 0]
    assert number_labels(Labels.of(["2", "01"]), names, "class_names", True).tolist() == [2, 1]
    numeric = ("10", "9", "0")
    assert number_labels(Labels.of(["0", "10"]), numeric, "class_names", True).tolist() == [2, 0]
    with pytest.raises(CellError, match=r"'2' .*one has numbers and the other names.*class_names"):
        number_labels(Labels.of(["2", "0"]), names, "train", False)
    with pytest.raises(CellError, match=r"'cat' .*one has numbers"):
        number_labels(Labels.of(["cat"]), ("0", "1"), "train", False)
    for bad in ("3", "emu", "nan"):
        with pytest.raises(CellError) as error:
            number_labels(Labels.of(["0", bad]), names, "class_names", True)
        assert error.value.text == bad
    with pytest.raises(CellError):  # two labels with one meaning
        number_labels(Labels.of(["1", "01"]), names, "class_names", True)


def test_labels_of_files_are_joined_and_chosen():
    joined = join_labels([Labels.of(["b", "a"]), Labels.of([]), Labels.of(["c", "b"])])
    assert [joined.texts[code] for code in joined.codes] == ["b", "a", "c", "b"]
    some = joined.only(np.array([3, 2]))
    assert [some.texts[code] for code in some.codes] == ["b", "c"]


def test_whole_floats_become_numbers_if_all_are():
    assert whole_floats(Labels.of(["1.0", "0.00"])).texts == ("1", "0")
    assert whole_floats(Labels.of(["1.0", "0"])).texts == ("1.0", "0")
    assert whole_floats(Labels.of(["1.0", "1.00"])).texts == ("1.0", "1.00")


def test_names_that_look_alike_and_numbers_without_0_are_noted():
    assert label_notes(("0", "1")) == []
    (note,) = label_notes(("Ant", "ant ", "bee"))
    assert "'Ant', 'ant ' are kept apart" in note
    assert len(label_notes(("01", "1"))) == 2
    assert "taken as names of 2 classes" in label_notes(("5", "7"))[0]
