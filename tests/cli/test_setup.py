"""`silo setup` asks before it does anything, and says at the end what works.

The fixture `kernel_folder` fetches a kernel once for all tests.
"""


def test_with_everything_there_it_tries_whether_it_works(bare_silo, kernel_folder):
    bare_silo.environ["SILO_KERNEL"] = str(kernel_folder)
    found = bare_silo("setup")
    assert found.status == 0
    assert "nothing is missing" in found.err
    assert "microvm  yes    a fake" in found.out


def test_when_no_sandbox_works_afterwards_it_exits_with_5(bare_silo, kernel_folder):
    bare_silo.environ["SILO_KERNEL"] = str(kernel_folder)
    bare_silo.works = False
    found = bare_silo("setup", "--yes")
    assert (found.status, found.code, found.hint) == (5, "sandbox-unavailable", "tell it to")
    assert "missing: it was told not to work" in found.out


def test_without_a_terminal_it_says_what_it_would_do_and_does_nothing(bare_silo):
    found = bare_silo("setup")
    assert (found.status, found.code, found.out) == (3, "approval-required", "")
    assert f"unpack them into {bare_silo.home / 'kernel'}" in found.err
    assert "--yes" in found.hint
    assert not (bare_silo.home / "kernel").exists()
