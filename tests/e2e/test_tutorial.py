"""The tutorial, followed word by word by a shell with a new user's defaults, in microVMs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_first_skill_comes_to_be_word_by_word_in_microvms(new_silo, tmp_path):
    silo = new_silo()
    environ = {name: value for name, value in silo.environ.items() if name not in ("SILO_HOME", "SILO_MASTER_KEY")}
    page = REPOSITORY / "docs" / "tutorials" / "first-skill.md"
    assert _walkthrough().walk(page, tmp_path, environ) > 20


def _walkthrough():
    """Load the script that follows tutorials; it is not part of a package."""
    name = "silo_e2e_walkthrough"
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "tests" / "docs" / "walkthrough.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
