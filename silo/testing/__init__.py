"""For tests of silo and of what others build on it: fakes of every part that has an edge to the outside.

`fakes` stands in for backends, vaults, people and clocks; `conformance` checks that a real backend keeps what the protocol promises;
`traces` finds what a guest left behind.
Nothing here is imported by silo itself.
"""

from typing import Final

PATIENCE_S: Final = 300.0
"""How long a test waits for what must come. Minutes: on any machine, however busy, only what hangs takes longer."""
