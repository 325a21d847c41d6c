"""Ask one question at the terminal and report on stdout; `test_terminal.py` runs this under a pseudo-terminal."""

import asyncio
import fcntl
import json
import os
import sys
import termios
import threading

from silo_interaction import InteractionError, Question, TerminalChannel, WantedSecret


async def ask(spec: dict) -> dict:
    channel = TerminalChannel()
    question = Question(
        spec["title"],
        spec["who"],
        tuple((a, b) for a, b in spec["facts"]),
        spec["danger"],
        grace_s=spec["grace_s"],
        wanted=WantedSecret(**spec["wanted"]) if spec["wanted"] else None,
    )
    try:
        answers = await asyncio.gather(
            *(channel.ask(question, timeout_s=spec["timeout_s"]) for _ in range(spec["times"]))
        )
    except InteractionError as error:
        return {"error": error.code, "message": error.message, "hint": error.hint}
    return {
        "answers": [[answer.approved, answer.reason] for answer in answers],
        "interrupted": [answer.interrupted for answer in answers],
        "grace": [answer.grace for answer in answers],
        "typed": [[answer.value, answer.keep] for answer in answers],
    }


def main() -> None:
    spec = json.loads(sys.argv[1])
    if spec["controlling"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if spec["raw"]:
        settings = termios.tcgetattr(0)
        settings[0] &= ~termios.ICRNL
        settings[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(0, termios.TCSANOW, settings)
    if spec["background"]:
        # A child in a group of its own asks, while the terminal's foreground stays with this one.
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return
        os.setpgid(0, 0)
    before = termios.tcgetattr(0) if os.isatty(0) else None
    report = asyncio.run(ask(spec))
    report["threads"] = threading.active_count()
    report["terminal_restored"] = before is None or termios.tcgetattr(0) == before
    report["blocking"] = os.get_blocking(0)
    sys.stdout.write(json.dumps(report))
    sys.stdout.flush()


main()
