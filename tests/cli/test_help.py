"""`--help` is quick, because it loads nothing that only a running command needs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "numpy", "pandas", "matplotlib", "sklearn", "pyarrow", "timm", "PIL")
PROGRAM = f"""
import sys
from typer.main import get_command
from typer.testing import CliRunner
from longtailed.cli.main import app

for command in [[], *([name] for name in get_command(app).commands)]:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, command
print(len(get_command(app).commands), sorted(set({HEAVY}) & set(sys.modules)))
"""


def test_the_help_of_every_command_loads_no_heavy_library():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    number, loaded = done.stdout.split(maxsplit=1)
    assert int(number) >= 10
    assert loaded.strip() == "[]"
