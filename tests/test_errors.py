"""An unknown name is answered with the few nearest, and with the command that lists all."""

from __future__ import annotations

import pytest

from longtailed.cli.catalogue import LISTS
from longtailed.data import load_imageset, make_sampler, view_preset
from longtailed.errors import LongTailedError, unknown_name
from longtailed.methods import check_options, method_class
from longtailed.nn import build_network
from longtailed.recipes import compose, named_recipe, override


def test_few_names_are_all_given():
    message = str(unknown_name("head", "cos", ["linear", "cosine"]))
    assert message == "unknown head 'cos'; did you mean 'cosine'? Known: cosine, linear."
    assert str(unknown_name("head", "zzz", ["linear"])) == "unknown head 'zzz'; known: linear."


def test_of_many_names_the_five_nearest_are_given():
    names = [f"name-{number}" for number in range(40)]
    assert str(unknown_name("thing", "name-31x", names, listing="things")) == (
        "unknown thing 'name-31x'; did you mean 'name-31'? The nearest of 40: name-31, name-1, "
        "name-3, name-10, name-11 (`longtailed list things` shows all)."
    )


@pytest.mark.parametrize(
    ("ask", "listing"),
    [
        (lambda: named_recipe("cifar-ldam"), "recipes"),
        (lambda: method_class("ldamm"), "methods"),
        (lambda: build_network("resnet33", 10), "networks"),
        (lambda: override(compose("digits"), ["epoch=3"]), "keys"),
        (lambda: check_options("ldam-drw", {"margin": 1}), "keys ldam-drw"),
        (lambda: load_imageset("cifar"), "sources"),
        (lambda: view_preset("largest", 224), "views"),
        (lambda: make_sampler("balanced", [0, 1], 2, seed=0), "samplers"),
    ],
)
def test_the_command_that_lists_all_names_is_given(ask, listing):
    assert listing.split()[0] in LISTS
    with pytest.raises(LongTailedError, match=f"`longtailed list {listing}` shows all") as caught:
        ask()
    assert str(caught.value).count(",") < 8
