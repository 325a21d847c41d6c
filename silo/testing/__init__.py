"""For tests of silo and of programs that build on it: fakes of every part that touches the outside.

`fakes` replaces backends, vaults, people and clocks; `conformance` checks that a real backend keeps the promises of its
protocol; `traces` finds what a guest left behind; `hostile` makes the messages that no guest may send. silo itself
imports nothing from here.
"""

from typing import Final

PATIENCE_S: Final = 300.0
"""How long a test waits for something that must happen: minutes, so that on a busy machine only a hang exceeds it."""
