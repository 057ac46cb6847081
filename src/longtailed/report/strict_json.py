"""JSON that every reader accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longtailed.errors import LongTailedError


def to_json(value: Any, **options: Any) -> str:
    """Return JSON text of a value; NaN and infinities become null, as JSON has no word for them.

    `options` are those of `json.dumps`.

    >>> to_json({"accuracy": float("nan")})
    '{"accuracy": null}'
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; a missing or broken file is one sentence."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LongTailedError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LongTailedError(f"{path} cannot be read as JSON: {error}.") from None


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value
