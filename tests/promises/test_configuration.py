"""Promise 9: unreadable or unknown configuration stops silo; nothing is weakened by a spelling mistake.

`tests/silo/config` has every case of the loader. Here the whole program gets misspelt restrictions, as a user runs it.
"""

import os
import subprocess
import sys

import pytest

CASES = {
    "a misspelt key": ('[sandbox]\nmin_isolaton = "microvm"\n', {}),
    "a misspelt table": ('[sandbx]\nmin_isolation = "microvm"\n', {}),
    "a misspelt value": ('[sandbox]\nmin_isolation = "microvn"\n', {}),
    "another type": ("[approval]\nheadless = 7\n", {}),
    "half a file": ('[sandbox]\nbackend = "micro', {}),
    "no text": ("\ud800", {}),
    "a misspelt variable": ("", {"SILO_HEADLES": "1"}),
    "a variable with nonsense": ("", {"SILO_HEADLESS": "perhaps"}),
    "a backend that does not exist": ("", {"SILO_BACKEND": "chroot"}),
}


@pytest.mark.parametrize("case", CASES)
def test_silo_stops_and_says_where(case, tmp_path):
    text, environ = CASES[case]
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "silo.toml").write_bytes(text.encode(errors="surrogatepass"))
    (home / "silo.toml").chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", "silo", "list"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "SILO_HOME": str(home), **environ},
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "silo: error:" in done.stderr
    assert "silo: hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in home.iterdir()) == ["silo.toml"]


def test_a_configuration_without_mistakes_does_not_stop_it(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "silo.toml").write_text('[sandbox]\nmin_isolation = "microvm"\n')
    (home / "silo.toml").chmod(0o600)
    environ = {"PATH": os.environ["PATH"], "SILO_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "silo", "list"], capture_output=True, text=True, check=False, env=environ
    )
    assert done.returncode == 0, done.stderr
