"""Calls `harden` twice and reports as JSON. `test_process.py` runs this, because `harden` can't be undone."""

import ctypes
import json
import os
import posix
import resource
import subprocess
import sys

from silo_vault import harden


def environment_block() -> str:
    try:
        with open("/proc/self/environ", "rb") as file:
            return file.read().decode("latin-1")
    except PermissionError:  # not dumpable, and not root
        return ""


block_before = environment_block()
first, second = harden(), harden()
report = {
    "first": first,
    "second": second,
    "in_environ": "SILO_MASTER_KEY" in os.environ,
    "in_posix": b"SILO_MASTER_KEY" in posix.environ,
    "block_before": block_before,
    "block": environment_block(),
    "child": subprocess.run(["env"], stdout=subprocess.PIPE, check=True, env=None).stdout.decode(),
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "child_core": subprocess.run(["sh", "-c", "ulimit -c"], stdout=subprocess.PIPE, check=True).stdout.decode().strip(),
}
sys.stdout.write(json.dumps(report) + "\n")
sys.stdout.flush()
sys.stdin.read()
