"""The version of silo, in one place; `pyproject.toml` repeats it, and a test compares the two."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
