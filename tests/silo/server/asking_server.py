"""The real stdio server as a process, with an engine that asks a person: `python asking_server.py FOLDER PATIENCE_S`.

The person answers by writing a file into the folder, named like the question, with a line `yes` or `no REASON`. The
file `ran` there gets a line of JSON for each call that asked and for which a guest would have been started.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from silo.server.engine import ServerOptions
from silo.server.transports.stdio import serve

LOOK_S = 0.01


def main() -> int:
    folder, patience_s = Path(sys.argv[1]), float(sys.argv[2])

    @asynccontextmanager
    async def open_engine() -> AsyncIterator[object]:
        import anyio
        from fake_engine import FakeEngine, demo_engine

        class AskingEngine(FakeEngine):
            def look(self) -> None:
                for question in self.questions.values():
                    answer = folder / question.id
                    said = answer.read_text() if not question.decided.is_set() and answer.exists() else ""
                    if said.endswith("\n"):  # else it is still being written
                        verdict, _, reason = said.strip().partition(" ")
                        question.answer(verdict == "yes", reason)

            async def watch(self) -> None:
                while True:
                    self.look()
                    await anyio.sleep(LOOK_S)

            async def _settle(self, tool: str, arguments: Mapping[str, Any], *rest: Any) -> None:
                self.look()
                await super()._settle(tool, arguments, *rest)
                if tool in self.asks:
                    with open(folder / "ran", "a") as ran:
                        ran.write(json.dumps([tool, arguments]) + "\n")

        demo = demo_engine()
        engine = AskingEngine(demo.installed, demo.scripts, asks={"demo.echo": ("Run demo.echo",)})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.watch)
            yield engine
            tasks.cancel_scope.cancel()

    return serve(open_engine, ServerOptions(version="0.0.test", patience_s=patience_s))


if __name__ == "__main__":
    sys.exit(main())
