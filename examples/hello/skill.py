# /// script
# requires-python = ">=3.11"
# dependencies = []
#
# [tool.silo]
# namespace = "hello"
# ///
"""The smallest skill: one tool, no dependencies, no secrets."""

from silo import Skill

skill = Skill("hello")


@skill.tool()
def greet(name: str = "world") -> str:
    """Greet somebody by name.

    Args:
        name: whom to greet.
    """
    return f"Hello, {name}!"


if __name__ == "__main__":
    skill.run()
