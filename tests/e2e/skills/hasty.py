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
"""A skill with a short time limit. It is separate from `tricky`, whose calls must not time out on a slow machine."""

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
