"""The vault compared with a model: no sequence of changes, crashes and reopenings loses or revives an entry."""

import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from silo_vault import EnvironmentKey, SecretNotFound, Vault, VaultError, VaultLocked, VaultRolledBack

KEYS = ["00112233445566778899aabbccddeeff" * 2, "ffeeddccbbaa99887766554433221100" * 2]
WRONG = "ab" * 32

Model = dict[tuple[str, str], str]

places = st.tuples(st.sampled_from(["", "jwt", "github"]), st.sampled_from(["A", "B", "LONGER_NAME"]))
values = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
changes = st.one_of(
    st.tuples(st.just("put"), places, values),
    st.tuples(st.just("put_all"), st.dictionaries(places, values, max_size=3)),
    st.tuples(st.just("remove"), places),
    st.tuples(st.just("rotate")),
    st.tuples(st.just("rekey")),
    st.tuples(st.just("canary"), st.sampled_from(["A", "DECOY"])),
)
steps = st.lists(
    st.one_of(
        changes,
        st.tuples(st.just("reopen")),
        st.tuples(st.just("restore")),
        st.tuples(st.just("old file")),
        st.tuples(st.just("wrong key"), places, values),
        st.tuples(st.just("crash"), changes, st.integers(1, 3000)),
    ),
    max_size=14,
)


class Run:
    """One vault, its expected contents now and one generation before, and the key that opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = 0
        self.model: Model = {}
        self.before: Model = {}
        self.exists = False
        self.vault = self.reopened()

    def reopened(self) -> Vault:
        return Vault(self.path, [EnvironmentKey(KEYS[self.key])])

    def held(self) -> Model:
        return {place: secret.reveal() for place, secret in self.vault.get_all().items()}

    def change(self, vault: Vault, change: tuple) -> tuple[Model, int]:
        """Make a change. Return the expected contents after it, and the key that opens the vault."""
        match change:
            case "put", (namespace, name), value:
                vault.put(name, value, namespace=namespace)
                return self.model | {(namespace, name): value}, self.key
            case "put_all", some:
                vault.put_all(some)
                return self.model | some, self.key
            case "remove", place:
                vault.remove(place[1], namespace=place[0])
                return {other: value for other, value in self.model.items() if other != place}, self.key
            case ("rotate",):
                vault.rotate()
            case "rekey", *_:
                remove = [slot.key_id for slot in vault.status().keys]
                vault.rekey(add=[EnvironmentKey(KEYS[1 - self.key])], remove=remove)
                return self.model, 1 - self.key
            case "canary", name:
                vault.add_canary(name)
        return self.model, self.key

    def step(self, step: tuple) -> None:
        generation = self.vault.status().generation
        match step:
            case ("reopen",):
                self.vault = self.reopened()
            case ("restore",):
                self.restore()
            case ("old file",) if self.vault.backup.exists():
                newest, older = self.path.read_bytes(), self.vault.backup.read_bytes()
                if older == newest:  # the keys changed last
                    return
                self.path.write_bytes(older)
                with pytest.raises((VaultRolledBack, VaultLocked)):
                    self.reopened().names()
                self.path.write_bytes(newest)
            case "wrong key", (namespace, name), value:
                if self.exists:
                    with pytest.raises(VaultLocked):
                        Vault(self.path, [EnvironmentKey(WRONG)]).put(name, value, namespace=namespace)
            case "crash", change, delay_us:
                self.crash(change, delay_us)
            case ("old file",):
                pass
            case _:
                try:
                    model, self.key = self.change(self.vault, step)
                except SecretNotFound:
                    assert step[0] in ("rotate", "rekey") or step[1] not in self.model
                else:
                    if self.vault.status().generation != generation:
                        self.before = self.model
                    self.model = model
                    self.vault = self.vault if step[0] != "rekey" else self.reopened()
        self.exists = self.path.exists()

    def restore(self) -> None:
        try:
            self.vault.restore()
        except SecretNotFound:  # there is no backup yet
            return
        self.model, self.before = self.before, self.model

    def crash(self, change: tuple, delay_us: int) -> None:
        """Make a change in a process that a signal kills during the change or after it."""
        before = self.path.read_bytes() if self.path.exists() else None
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, delay_us / 1e6)
            try:
                self.change(self.reopened(), change)
            except VaultError:
                pass
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        if (self.path.read_bytes() if self.path.exists() else None) == before:
            return
        self.before = self.model
        if change[0] == "put":
            self.model = self.model | {change[1]: change[2]}
        elif change[0] == "put_all":
            self.model = self.model | change[1]
        elif change[0] == "remove":
            self.model = {place: value for place, value in self.model.items() if place != change[1]}
        elif change[0] == "rekey":
            self.key = 1 - self.key
            self.vault = self.reopened()


@settings(max_examples=60, deadline=None)
@given(steps)
def test_no_sequence_of_changes_and_crashes_loses_or_revives_an_entry(sequence):
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "credentials.silo")
        for step in sequence:
            run.step(step)
            assert run.held() == run.model
        run.vault = run.reopened()
        assert run.held() == run.model
        if run.exists:
            run.vault.put("LAST", "1")  # nothing that a crash left behind prevents this
            assert not list(Path(place).glob("*.tmp"))
            assert run.vault.get("LAST").reveal() == "1"
