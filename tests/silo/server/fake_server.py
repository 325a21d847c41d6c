"""The real stdio server over the fake engine, as a process: `python fake_server.py [SKILLS_FOLDER]`.

With a folder, its entries are the installed skills (one empty skill for each), so that a test installs by making one.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from silo.model import Skill
from silo.server.engine import ServerOptions
from silo.server.transports.stdio import serve


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    print("printed before anything was claimed")  # still in Python's buffer when the server takes over

    @asynccontextmanager
    async def open_engine() -> AsyncIterator[object]:
        from fake_engine import FakeEngine, demo_engine, echo, make_skill, make_tool

        class FolderEngine(FakeEngine):
            async def skills(self) -> tuple[Skill, ...]:
                assert folder is not None
                for entry in folder.iterdir():
                    tool = make_tool(f"{entry.name}.echo")
                    self.install(make_skill(entry.name, tool), echo=echo)
                return await super().skills()

        engine = demo_engine()
        if folder is not None:
            engine = FolderEngine(engine.installed, engine.scripts)
        try:
            yield engine
        finally:
            print("the engine is closed", file=sys.stderr, flush=True)

    return serve(open_engine, ServerOptions(version="0.0.test", poll_s=0.05))


if __name__ == "__main__":
    sys.exit(main())
