"""What `import longtailed` gives, and what it does not import."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import longtailed

HOME = Path(longtailed.__file__).parent


@pytest.mark.parametrize("name", longtailed.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(longtailed, name) is not None
    assert name in dir(longtailed)


def test_sub_packages_are_listed() -> None:
    packages = {path.parent.name for path in HOME.glob("*/__init__.py")} - {"cli"}
    assert packages <= set(dir(longtailed))
    for name in packages:
        assert getattr(longtailed, name) is import_module(f"longtailed.{name}")


def test_an_unknown_name_is_no_attribute() -> None:
    assert not hasattr(longtailed, "losess")


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, longtailed\n"
        "assert 'torch' not in sys.modules\n"
        "longtailed.losses.ldam_loss\n"
        "assert 'torch' in sys.modules and 'longtailed.training' not in sys.modules\n"
        "from longtailed import *\n"
        "fit, losses.focal_loss, build_method\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
