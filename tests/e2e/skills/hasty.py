# /// script
# requires-python = ">=3.11"
# dependencies = []
#
# [tool.silo]
# namespace = "hasty"
# description = "Has a deadline that its only tool misses, for the end-to-end tests."
# memory_mib = 160
# timeout_s = 2
# ///
"""A skill of its own, because the time that a call may take is its skill's: those of `tricky` must not miss theirs on a slow machine."""

import time

from silo import Skill

skill = Skill("hasty")


@skill.tool()
def hang() -> None:
    """Never return."""
    while True:
        time.sleep(60)


if __name__ == "__main__":
    skill.run()
