"""In any order of events, a call goes through only with a person's yes, and as often as the person said.

Two stores on one folder stand for two processes. They are compared with a model that is simple enough to trust.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from silo_interaction import Answer, PostedQuestion, Question

from silo.approvals.store import Decisions

STANDS_S, GRACE_S = 60, 200
STORES = st.sampled_from([0, 1])
KEYS = st.sampled_from(["a", "b"])
SHAPES = st.sampled_from(["microvm", "namespace"])
ANSWERS = {"yes": Answer(True, "yes"), "no": Answer(False, "no"), "grace": Answer(True, "yes", grace=True)}


@dataclass
class Asked:
    """What the model knows about one question."""

    posted: PostedQuestion
    key: str
    asker: int | None
    state: str = "waiting"
    left: float = 0  # calls that a decision still lets through
    until: float = 0
    decided_at: float = 0


class Store(RuleBasedStateMachine):
    questions = Bundle("questions")

    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1000.0
        self.opened = []
        self.stores = [self.open(), self.open()]
        self.locks = [set(), set()]
        self.asked = {}

    def open(self):
        store = Decisions(self.folder, now=lambda: self.now)
        self.opened.append(store)
        return store

    def teardown(self):
        for store in self.opened:
            store.close()
        shutil.rmtree(self.folder)

    def end_overdue(self):
        """Apply the passing of time to every question, as each transaction does first."""
        for asked in self.asked.values():
            if asked.state == "waiting":
                if self.now >= asked.posted.expires_at or self.now < asked.posted.asked_at:
                    asked.state = "expired"
                elif asked.asker is None:
                    asked.state = "withdrawn"
            elif asked.left and not asked.decided_at <= self.now < asked.until:
                asked.left = 0

    def decided(self, key, state):
        self.end_overdue()
        return [item for item in self.asked.values() if item.key == key and item.state == state and item.left]

    @rule(target=questions, store=STORES, key=KEYS, shape=SHAPES)
    def ask(self, store, key, shape):
        self.end_overdue()
        run = self.folder / "run"
        before = set(run.iterdir()) if run.exists() else set()
        question = Question("q", "w", facts=(("isolation", shape),), grace_s=GRACE_S)
        posted, _, is_new = self.stores[store].post(
            key, question, subject="s", principal="p", stands_s=STANDS_S, profile={}, refusal=key
        )
        self.locks[store] |= set(run.iterdir()) - before
        mine = [item for item in self.asked.values() if (item.asker, item.key, item.state) == (store, key, "waiting")]
        joined = [item for item in mine if item.posted.digest == question.digest()]
        assert [item.posted for item in joined] == ([] if is_new else [posted])
        if not is_new:
            return multiple()
        for item in mine:
            item.state = "withdrawn"
        self.asked[posted.id] = Asked(posted, key, store)
        return posted.id

    @rule(
        store=STORES,
        question_id=questions,
        how=st.sampled_from(sorted(ANSWERS)),
        saw=st.sampled_from(["it", "it", "else"]),
    )
    def answer(self, store, question_id, how, saw):
        self.end_overdue()
        asked = self.asked[question_id]
        digest = asked.posted.digest if saw == "it" else "0" * 64
        outcome = self.stores[store].decide(question_id, digest, ANSWERS[how], by="test")
        if asked.state != "waiting":
            assert outcome == "gone"
        elif saw == "else":
            assert outcome == "changed"
        else:
            assert outcome == "decided"
            for other in self.decided(asked.key, "approved" if how == "no" else "denied"):
                other.left = 0
            asked.state = "denied" if how == "no" else "approved"
            asked.left = 1 if how == "yes" else float("inf")
            asked.decided_at = self.now
            stands = {"yes": self.now + STANDS_S, "grace": self.now + GRACE_S, "no": asked.posted.expires_at}
            asked.until = stands[how]
            if how == "no":
                for other in self.asked.values():
                    if other.key == asked.key and other.state == "waiting":
                        other.state, other.left = "denied", float("inf")
                        other.decided_at, other.until = self.now, other.posted.expires_at

    @rule(store=STORES, key=KEYS)
    def use(self, store, key):
        usable = self.decided(key, "approved")
        standing = self.stores[store].standing(key)
        used = self.stores[store].use(key)
        assert (used is not None) == bool(usable)
        assert used == standing
        if used is not None:
            asked = self.asked[used.id]
            assert asked in usable
            assert asked.left == max(item.left for item in usable)
            asked.left -= 1

    @rule(store=STORES, key=KEYS)
    def refusal(self, store, key):
        refused = self.decided(key, "denied")
        found = self.stores[store].refusal(key)
        assert (found is not None) == bool(refused)
        assert found is None or found.id in [item.posted.id for item in refused]

    @rule(seconds=st.sampled_from([1, 29, STANDS_S - 1, STANDS_S, STANDS_S + 1, GRACE_S - 1, GRACE_S]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(seconds=st.sampled_from([1, 30]))
    def clock_is_set_back(self, seconds):
        self.now -= seconds

    @rule(store=STORES)
    def restart(self, store):
        if self.locks[store]:
            self.end_overdue()
        self.stores[store].close()
        assert not any(lock.exists() for lock in self.locks[store])
        self.gone(store, "withdrawn")

    @rule(store=STORES)
    def crash(self, store):
        """Release the lock and write nothing. `test_store_processes` shows that a real process loses its lock."""
        for lock in self.locks[store]:
            lock.unlink()
        self.gone(store, None)

    def gone(self, store, state):
        for asked in self.asked.values():
            if asked.asker == store:
                asked.asker = None
                if state is not None and asked.state == "waiting":
                    asked.state = state
        self.locks[store] = set()
        self.stores[store] = self.open()

    @rule(store=STORES, question_id=questions)
    def withdraw(self, store, question_id):
        self.end_overdue()
        self.stores[store].withdraw(question_id, "test")
        if self.asked[question_id].state == "waiting":
            self.asked[question_id].state = "withdrawn"

    @rule(store=STORES, question_id=consumes(questions))
    def revoke(self, store, question_id):
        self.end_overdue()
        asked = self.asked[question_id]
        was = asked.state == "waiting" or bool(asked.left)
        assert self.stores[store].revoke(question_id) == was
        if was:
            asked.state, asked.left = "withdrawn", 0

    @rule(store=STORES)
    def look(self, store):
        self.end_overdue()
        states = {entry.posted.id: entry.posted.state for entry in self.stores[store].all(standing=False)}
        assert states == {question_id: asked.state for question_id, asked in self.asked.items()}
        waiting = {posted.id for posted in self.stores[store].waiting()}
        assert waiting == {question_id for question_id, asked in self.asked.items() if asked.state == "waiting"}

    @invariant()
    def files_are_few(self):
        assert len(list(self.folder.glob("state.db*"))) <= 1


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
