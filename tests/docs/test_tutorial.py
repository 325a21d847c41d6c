"""The tutorial, done word by word by a shell, in microVMs: what a newcomer reads is what they will see."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture
def reader(tmp_path, cache, kernel_folder):
    """The environment of somebody who has silo on their PATH, ran `silo setup`, and has an empty home folder."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        # What uv needs to know of package indexes is the machine's; its cache is kept between runs.
        **{name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_CERT_"))},
        "UV_CACHE_DIR": str(cache / "uv"),
        "SILO_KERNEL": str(kernel_folder),
    }


def test_the_first_skill_comes_to_be_word_by_word(walkthrough, reader, repository, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    assert walkthrough.walk(repository / "docs/tutorials/first-skill.md", work, reader) > 20
