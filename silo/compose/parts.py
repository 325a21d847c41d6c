"""Everything that `silo.runtime.Runtime` is made of, built out of the configuration. Nothing is started here.

Each part gets only parts that were built before it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from silo_vault import VaultError

from silo.approvals.consent import Approvals
from silo.approvals.store import Decisions
from silo.audit.log import AuditLog
from silo.audit.recorder import Recorder
from silo.calls.pipeline import CallPipeline
from silo.catalog.store import SkillStore
from silo.compose.approvals import build_approvals
from silo.compose.backends import build_backends, choice_of
from silo.compose.settings import input_rules, limits_of, router_settings, rules_of
from silo.compose.vault import VaultSetup
from silo.config.home import default_home, prepare_home
from silo.config.load import load
from silo.config.schema import Config
from silo.discovery.indexes import Indexes
from silo.discovery.learned import LearnedFile
from silo.discovery.search import Finder
from silo.install.grants import Grants
from silo.model import Caller, Interpreter
from silo.providers.skills import Skills
from silo.runners.local import LocalRunner
from silo.runners.units import ImageStore, SkillUnits
from silo.sandbox.base import Backend
from silo.sandbox.build import BuildSandbox
from silo.sandbox.image import Images
from silo.secrets.keeper import SecretKeeper
from silo.secrets.lease import Secrets, from_vault_error
from silo.sizes import MIB

if TYPE_CHECKING:
    from silo_interaction import Channel, Question

    from silo.install.installer import Installer

# Every command that opens a runtime loads this module, so slow modules are imported where they are used:
# `silo.install.installer`, `silo.catalog.builtin`, `silo.catalog.interpreter` and `silo.catalog.uv` (packaging and uv,
# 0.03 s).

MASTER_KEY = "SILO_MASTER_KEY"


@dataclass(frozen=True)
class Parts:
    """The parts of one runtime.

    Attributes:
        caller: the default caller, with its session set.
        backends: strongest first; the runtime enters them before the first call, and leaves them after the last.
        learned: the file of lessons, also if learning is switched off.
        record: adds an event of the caller to the audit log.
        installer: returns what installs skills.
    """

    home: Path
    config: Config
    caller: Caller
    backends: tuple[Backend, ...]
    runner: LocalRunner
    skills: Skills
    finder: Finder
    learned: LearnedFile
    record: Recorder
    vault: VaultSetup
    approvals: Approvals
    pipeline: CallPipeline
    installer: Callable[[], Installer]


def build_parts(
    *,
    home: Path | None,
    config: Config | None,
    environ: Mapping[str, str] | None,
    caller: Caller,
    channel: Channel | None,
    ask_passphrase: Callable[[], str | None] | None,
    show_code: Callable[[str], None] | None,
    backends: Sequence[Backend] | None,
    images: ImageStore | None,
) -> Parts:
    """Return the parts; arguments and errors as for `Runtime`."""
    environ = dict(os.environ if environ is None else environ)
    master_key = environ.pop(MASTER_KEY, None)
    home = prepare_home(home if home is not None else default_home(environ))
    config = config if config is not None else load(home, environ=environ).config
    # A session is one task of an agent: `silo audit show --tasks` counts how many questions it took.
    # An approval counts for one session, so its name is one that nobody can guess or repeat.
    caller = replace(caller, session=caller.session or secrets.token_hex(8))
    headless = config.approval.headless

    log = AuditLog(home, now=_now, flush=config.audit.flush)
    record = Recorder(log, caller)

    rules = rules_of(config.policy)
    store = SkillStore(home / "skills")
    learned = LearnedFile(home)
    lessons = learned if config.router.learning else None
    indexes = Indexes(router_settings(config.router), cache=home / "run" / "router.npz", learned=lessons)
    skills = Skills(store, rules, guess=indexes.described)

    own_images = Images(home / "images")
    if backends is None:
        backends = build_backends(home, config, own_images, resident=caller.kind != "cli")

    async def inspect(executable: Path) -> Interpreter | None:
        from silo.catalog.interpreter import inspect_interpreter

        return await inspect_interpreter(executable, environ)

    units = SkillUnits(own_images if images is None else images, limits_of(config), inspect)
    runner = LocalRunner(backends, choice_of(config), units)

    vault = VaultSetup(home, config, environ=environ, master_key=master_key, ask_passphrase=ask_passphrase)
    approvals = build_approvals(
        home,
        config,
        environ=environ,
        terminal=channel,
        keep=SecretKeeper(lambda: vault.vault, record, headless),
        show_code=show_code,
        record=record,
    )
    sources = vault.sources()
    pipeline = CallPipeline(
        skills=skills,
        rules=input_rules(config, home),
        approvals=approvals,
        secrets=Secrets(sources, headless),
        runner=runner,
        audit=log,
        policy=rules,
        limits=limits_of(config),
        slots=anyio.CapacityLimiter(config.call.max_concurrent),
    )

    async def confirm(question: Question, caller: Caller, tell: Callable[[str], None]) -> str:
        again = "`silo install`"
        return await approvals.confirm(question, subject=question.title, caller=caller, again=again, tell=tell)

    def in_vault() -> Sequence[tuple[str, str]]:
        try:
            return vault.vault.listed()
        except VaultError as error:
            raise from_vault_error(error, headless=headless) from error

    def approved() -> Sequence[str]:
        with closing(Decisions(home)) as decisions:
            return [entry.subject for entry in decisions.all() if entry.posted.state == "approved" and entry.until]

    def installer() -> Installer:
        from silo.catalog.builtin import builtin_folder
        from silo.catalog.uv import Uv
        from silo.install.installer import Installer

        return Installer(
            store=store,
            images=own_images if images is None else images,
            prune_images=own_images.prune,
            units=units,
            runner=runner,
            uv=Uv(environ, max_unpacked_bytes=config.install.max_mib * MIB),
            audit=log,
            grants=Grants(store, rules, sources, in_vault, approved),
            confirm=confirm,
            provisioned=config.install.provision,
            build_sandbox=BuildSandbox(hidden=(home, Path(environ.get("HOME", "/root")))),
            builtins=builtin_folder(),
            now=_now,
        )

    return Parts(
        home=home,
        config=config,
        caller=caller,
        backends=tuple(backends),
        runner=runner,
        skills=skills,
        finder=Finder(skills, indexes, learned=lessons),
        learned=learned,
        record=record,
        vault=vault,
        approvals=approvals,
        pipeline=pipeline,
        installer=installer,
    )


def _now() -> datetime:
    return datetime.now(UTC)
