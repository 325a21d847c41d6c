"""The real command line with a fake backend: `python fake_silo.py list …`, or in-process for the tests here.

`act` defines what each tool of the skill `demo` does. Its guests are coroutines, so nothing is isolated or slow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio

from silo.cli.context import CommandContext
from silo.cli.main import run
from silo.errors import SkillRaised
from silo.model import File
from silo.sandbox.skill.base import Captured, GuestReply, GuestRequest, OnProgress
from silo.testing.fakes import FakeBackend, FakeImages, described_tool
from silo.wire.messages import Finished, Progress

SCRIPT = '''# /// script
# requires-python = ">=3.11"
#
# [tool.silo]
# namespace = "demo"
# description = "Show what the command line does."
#
# [tool.silo.secrets.DEMO_KEY]
# description = "A key that opens nothing."
# ///
"""A demonstration."""
'''

FILE = {"type": "string", "x-silo-file": True}
ECHO = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "times": {"type": "integer"},
        "ratio": {"type": "number"},
        "loud": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "claims": {"type": "object"},
        "data": FILE,
        "more": {"type": "array", "items": FILE},
    },
    "additionalProperties": False,
}


DESCRIBED = {
    "namespace": "demo",
    "summary": "A demonstration.",
    "instructions": "Call `echo`.",
    "tools": [
        described_tool("echo", description="Return what was given.\n\nAll of it.", input_schema=ECHO),
        described_tool("guarded", description="Ask a person first.", require_approval=True),
        described_tool("keyed", description="Show a secret, which silo does not let pass.", secrets=["DEMO_KEY"]),
        described_tool("files", description="Return two files of one name."),
        described_tool("printing", description="Print, then answer."),
        described_tool("hostile", description="Answer with what could move a cursor."),
        described_tool("complaining", description="Report a failure."),
        described_tool("raising", description="Raise an exception."),
        described_tool("hanging", description="Never answer."),
        described_tool("broken", description="Show what happens when silo itself has a bug."),
    ],
}


async def act(request: GuestRequest, on_progress: OnProgress) -> GuestReply:
    """Do what the tool of that name does."""
    facts = {"kernel": "0.0-fake", "python": "3.11.7", "backend": "a fake"}
    printed = Captured(b"first\nsecond\n", 13)
    match request.tool:
        case "echo":
            document, files = request.document()
            data = {**document["arguments"], "files": [[f.name, f.media_type, f.data.decode()] for f in files]}
            return GuestReply(Finished(text="", data=data, has_data=True), facts=facts)
        case "keyed":
            return GuestReply(Finished(text=f"the key is {request.secrets['DEMO_KEY']}"), facts=facts)
        case "files":
            files = (File(b"one", "text/plain", "a.txt"), File(b"two", "text/plain", "a.txt"), File(b"\x00\xff"))
            return GuestReply(Finished(text="three files"), files=files, facts=facts)
        case "printing":
            return GuestReply(Finished(text="done"), stdout=printed, stderr=Captured(b"oops\x1b[2J\n", 9), facts=facts)
        case "hostile":
            return GuestReply(Finished(text="a\x1b[2Jb\u202e", data="\x9b\u202e\x7f", has_data=True), facts=facts)
        case "complaining":
            return GuestReply(Finished(text="no such row", is_error=True), facts=facts)
        case "raising":
            raise SkillRaised(
                "ValueError: no",
                hint="the traceback shows where",
                stdout="first\nsecond\n",
                traceback="Traceback:\n  line 1\nValueError: no",
            )
        case "hanging":
            on_progress(Progress(1, 2, "waiting"))
            print("hanging", file=sys.stderr, flush=True)
            try:
                await anyio.sleep_forever()
            finally:
                print("the guest is gone", file=sys.stderr, flush=True)
        case "broken":
            raise RuntimeError("s3cr3t in the text of an exception")
    return GuestReply(Finished(text=f"{request.tool} ran"), facts=facts)


def open_context(environ: Mapping[str, str], *, works: bool = True) -> CommandContext:
    """Return a context over the fake backend, with its images under `SILO_HOME`."""
    backend = FakeBackend(act, described=DESCRIBED, works=works)
    return CommandContext(environ, backends=[backend], images=FakeImages(Path(environ["SILO_HOME"]) / "images"))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], open_context(dict(os.environ))))
