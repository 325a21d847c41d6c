"""The folder that holds all of silo's state: where it is, and whether it is safe to trust.

Other modules define the files in it.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from silo.errors import HomeUnsafe

GROUP_OR_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def default_home(environ: Mapping[str, str]) -> Path:
    """Return `$SILO_HOME`, or `~/.silo`.

    Raises:
        HomeUnsafe: `SILO_HOME` is not an absolute path: a relative one would mean another folder in each directory.
    """
    value = environ.get("SILO_HOME", "")
    if not value:
        return Path(environ.get("HOME") or Path.home()) / ".silo"
    home = Path(value).expanduser()
    if not home.is_absolute():
        raise HomeUnsafe(
            f"SILO_HOME is not an absolute path: {value!r}", hint=f"set it to {shlex.quote(str(Path.cwd() / home))}"
        )
    return home


def prepare_home(home: Path) -> Path:
    """Create the folder with mode 0700 if it is not there, check that only its owner can change it, and return it.

    A link to a folder is followed (state on a larger disk is common); what it points to is checked.

    Raises:
        HomeUnsafe: not a folder, not ours, or writable by group or others.
    """
    quoted = shlex.quote(str(home))
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = home.stat()
    except FileExistsError as error:
        raise HomeUnsafe(
            f"{home} is not a folder", hint=f"move it away, or set SILO_HOME: mv {quoted} {quoted}.old"
        ) from error
    except OSError as error:
        raise HomeUnsafe(
            f"can't use {home}: {error.strerror}", hint="set SILO_HOME to a folder that you can write to"
        ) from error
    if facts.st_uid != os.geteuid():
        raise HomeUnsafe(
            f"{home} belongs to another user (uid {facts.st_uid})",
            hint=f"set SILO_HOME to a folder of your own, or run: sudo chown -R {os.geteuid()} {quoted}",
        )
    if facts.st_mode & GROUP_OR_OTHERS_WRITE:
        raise HomeUnsafe(
            f"{home} can be written by other users (mode {stat.S_IMODE(facts.st_mode):04o})", hint=f"chmod 700 {quoted}"
        )
    return home
