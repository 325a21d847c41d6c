"""Install the TypeScript clients into a cache folder, from the lock file beside this script, and print where it is.

Usage: `python tests/e2e/ts-client/install.py [CACHE]`; the default cache is `.cache/npm` of the checkout, which git
ignores. The lock file names no registry, so npm uses the one of the user's configuration. Once installed, nothing is
downloaded until a file here changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = ("package.json", "package-lock.json", "client.mjs", "approvals.mjs", "approvals-v1.mjs", "approvals-v2.mjs")
DEFAULT_CACHE = HERE.parents[2] / ".cache" / "npm"


def install(cache: Path) -> Path:
    """Return a folder with the scripts and their `node_modules`; safe to call from several processes at once."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in FILES)).hexdigest()[:16]
    target = cache / f"ts-client-{digest}"
    if target.is_dir():
        return target
    staging = cache / f".ts-client-{digest}-{os.getpid()}"
    staging.mkdir(parents=True)
    try:
        for name in FILES:
            shutil.copy(HERE / name, staging / name)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"],
            cwd=staging,
            env={**os.environ, "npm_config_cache": str(cache / "downloads")},
            stdout=sys.stderr,
            check=True,
        )
        # Another process may have been quicker; what it made is the same.
        if not target.is_dir():
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


if __name__ == "__main__":
    try:
        print(install(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_CACHE))
    except FileNotFoundError:
        sys.exit("npm is not on the PATH; install Node.js 20 or later (Debian: apt-get install nodejs npm)")
    except subprocess.CalledProcessError as error:
        sys.exit(f"npm ci failed with status {error.returncode}; its own message is above")
