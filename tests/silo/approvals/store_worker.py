"""A process that uses the store of decisions, for tests that kill it, make its disk fail, or start many."""

import sys
from pathlib import Path

from silo_interaction import Answer, Question

from silo.approvals.store import Decisions
from silo.errors import StateUnusable


def main(folder: str, action: str, *arguments: str) -> None:
    store = Decisions(Path(folder))
    if action == "post":
        for key in arguments:
            posted, _, _ = store.post(key, Question(key, "test"), subject="s", principal="p", stands_s=600, profile={})
            print(posted.id, posted.digest, flush=True)
    elif action == "decide":
        question_id, digest = arguments
        print(store.decide(question_id, digest, Answer(True, "yes"), by="test"), flush=True)
    elif action == "use":
        print("used" if store.use(arguments[0]) else "none", flush=True)
    elif action == "serve":  # reads lines with a key, prints a line with the result of each
        print("ready", flush=True)
        for line in sys.stdin:
            print("used" if store.use(line.strip()) else "none", flush=True)
    elif action == "ask":  # asks, and keeps the question open until standard input ends
        posted, _, _ = store.post(
            arguments[0], Question("q", "test"), subject="s", principal="p", stands_s=600, profile={}
        )
        print(posted.id, posted.digest, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except StateUnusable as error:
        print(error.code)
        sys.exit(7)
