from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from silo.catalog.digest import skill_digest


def test_the_digest_of_a_known_skill_does_not_change():
    """Changing it would ask everybody again for everything that they agreed to."""
    assert skill_digest(b"script", "lock") == "9936d0d3838612e0fc6cd13294c756162eff906424f73f4cb13b663d2b677f32"


@given(st.binary(max_size=50), st.text(max_size=50), st.binary(max_size=50), st.text(max_size=50))
def test_no_byte_can_move_between_script_and_lock_unnoticed(script: bytes, lock: str, other: bytes, other_lock: str):
    assert (skill_digest(script, lock) == skill_digest(other, other_lock)) == ((script, lock) == (other, other_lock))
    moved = skill_digest(script + lock.encode(), "")
    assert moved != skill_digest(script, lock) or lock == ""
