"""The path of an installation: from the name that a person gave to a skill that can be called.

Only this file knows the order of the steps. `silo.catalog` and the backends do them.

Nothing of the skill or of its dependencies runs on the host. A package without a wheel is built in a sandbox of its own
(`silo.install.builds`). A person agrees before a package is built or unpacked. The script runs for the first time
inside a sandbox, to say what its tools are. Nothing is installed before the last step, one rename. An earlier failure,
or Ctrl-C, leaves only the record, and the next install deletes what a killed process left. Nothing is deleted while
another install is under way, because it may use those files.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

from anyio import CancelScope, get_cancelled_exc_class, to_thread
from silo_interaction import Question

from silo.approvals.questions import who
from silo.audit.log import AuditLog
from silo.audit.trail import caller_record
from silo.catalog.builtin import Source, SourceFiles, builtin_sources, read_source, resolve_source
from silo.catalog.digest import skill_digest
from silo.catalog.environment import build_environment
from silo.catalog.header import read_header, refuse_not_yet
from silo.catalog.header_schema import check_namespace
from silo.catalog.interpreter import choose_interpreter
from silo.catalog.lock import Lock, Requirements, check_lock, make_lock, normalise, read_requirements
from silo.catalog.metadata import Metadata, read_metadata
from silo.catalog.plan import InstallPlan, PlannedBuild, plan_warnings
from silo.catalog.store import SkillStore
from silo.catalog.uv import Uv
from silo.errors import ApprovalRequired, CallDenied, SiloError, UsageError
from silo.install.builds import AgreeToBuild, SourceBuilds
from silo.install.grants import Grants
from silo.install.question import install_question
from silo.model import Caller, Interpreter, Isolation, Skill, SkillHeader
from silo.remedies import command
from silo.runners.base import Placement
from silo.runners.local import LocalRunner
from silo.runners.units import ImageReference, ImageStore, SkillUnits
from silo.sandbox.base import OnStep
from silo.sandbox.build import BuildSandbox
from silo.sandbox.skill.base import Unit
from silo.schema.arguments import to_checker, to_result_checker

Agree = Callable[[InstallPlan], Awaitable[bool]]
"""Shows a plan to a person and says whether they agree."""

DESCRIBE_S = 120.0
"""How long building a template may take: on an emulated CPU a large skill is imported in 20 seconds."""


@dataclass(frozen=True)
class InstallRequest:
    """What is to be installed, and how.

    Attributes:
        source: the name of a built-in skill, or a path.
        cwd: what a relative path starts from.
        name: another namespace than the skill's own.
        allow_builds: build packages that have no wheel, once the person has agreed, in a sandbox.
        allow_unsandboxed_builds: as `allow_builds`; where no sandbox works, a person is asked whether the builds may
            run as ordinary processes of the user.
        backend: the name of the backend that runs the script to describe it; None for the configured choice.
        provision: code that `silo.toml` names may have the grants of its name without a question; other code is
            refused.
    """

    source: str
    cwd: Path
    caller: Caller
    name: str | None = None
    allow_builds: bool = False
    allow_unsandboxed_builds: bool = False
    backend: str | None = None
    provision: bool = False


Confirm = Callable[[Question, Caller, OnStep], Awaitable[str]]
"""Asks a person on a channel that no agent holds; returns the question's id, or raises if there was no yes."""


@dataclass(frozen=True)
class Installer:
    """Installs and removes skills; `silo.compose.parts` builds it.

    Attributes:
        prune_images: deletes all bases and layers except those of the given digests, and what killed processes left
            beside them, as `silo.sandbox.image.Images.prune`.
        grants: finds what a name holds that new code under it would get.
        confirm: asks a person about that.
        provisioned: digests by name, from `silo.toml`.
        build_sandbox: where packages without a wheel are built.
    """

    store: SkillStore
    images: ImageStore
    prune_images: Callable[[Iterable[str]], object]
    units: SkillUnits
    runner: LocalRunner
    uv: Uv
    audit: AuditLog
    grants: Grants
    confirm: Confirm
    provisioned: Mapping[str, str]
    build_sandbox: BuildSandbox
    builtins: Path
    now: Callable[[], datetime]
    clock: Callable[[], float] = time.monotonic

    async def install(self, request: InstallRequest, *, agree: Agree, on_step: OnStep) -> Skill:
        """Install a skill, in place of an earlier version of it.

        Raises:
            SkillUnknown, FileRefused: nothing has that name, or it can't be read.
            HeaderInvalid, FeatureNotYet: the script's header is wrong, or asks for a feature that does not exist yet.
            LockDrift, DependencyUnavailable: the lock doesn't fit the header, or packages can't be had.
            CallDenied: the person did not agree, or the name got new grants meanwhile.
            ApprovalRequired, ApprovalTimeout: the code would get grants, and nobody could be asked, or answered.
            SandboxUnavailable, SandboxBroken, SandboxTimeout, SkillFailed: the script could not be run in a sandbox.
            SkillMetadataInvalid: the script's description of its tools is not allowed.
        """
        source, files = await to_thread.run_sync(self._read, request)
        header = read_header(files.script, name=source.name, filename=source.script.name)  # HeaderInvalid
        refuse_not_yet(header)  # FeatureNotYet
        namespace = header.namespace if request.name is None else _namespace(request.name)
        place = await self.runner.place(floor=header.min_isolation, named=request.backend)  # SandboxUnavailable
        interpreter = await choose_interpreter(header.requires_python, self.uv)  # DependencyUnavailable
        async with self._source_builds(header, interpreter, request, on_step) as builds:
            named = replace(header, namespace=namespace)

            async def agree_to_build(planned: Sequence[PlannedBuild]) -> None:
                part = _partial_plan(source, files, named, planned)
                await self._ask(part, request, agree, on_step)
                await self._record_builds(part, request.caller)

            lock = await self._lock(files, header, interpreter, builds, agree_to_build, on_step)  # LockDrift, …
            requirements = await read_requirements(lock, header, interpreter, self.uv)
            planned = () if builds is None else await builds.plan(requirements, lock)
            plan = await self._plan(source, files, lock, requirements, planned, named)
            async with self._recorded("install", plan, request.caller, place.isolation) as facts:
                facts["agreed"] = agreed = await self._ask(plan, request, agree, on_step)
                try:
                    async with self.store.stage(namespace) as stage:
                        if builds is not None and planned:
                            await self._record_builds(plan, request.caller)
                            requirements = await builds.build(requirements)
                        unit = await self._build(files, header, plan, requirements, interpreter, on_step)
                        metadata = await self._describe(place, unit, header, on_step)
                        image = ImageReference(interpreter.version, unit.base.digest, unit.layer.digest)
                        skill = replace(self._skill(plan, metadata, str(image), place.isolation), agreed=agreed)
                        await self._require_same_grants(plan)
                        # This takes milliseconds, and installs the whole skill or nothing.
                        with CancelScope(shield=True):
                            await to_thread.run_sync(
                                lambda: stage.commit(skill, script=files.script, lock=lock, manual=files.manual)
                            )
                finally:
                    # Deletes what a failed install built, or the version that this one replaced. It comes after the
                    # stage: inside it, this install would still count as under way, and nothing would be deleted.
                    with CancelScope(shield=True):
                        await self._collect((place.backend,))
                return skill

    async def uninstall(self, namespace: str, *, caller: Caller) -> Skill | None:
        """Remove a skill and its image; return the skill, or None if its record could not be read.

        Raises:
            SkillUnknown: it is not installed.
            AuditBroken: it is removed, but the removal could not be recorded.
        """
        skill = await self.store.remove(namespace)
        with CancelScope(shield=True):
            digest = None if skill is None else skill.digest
            body = {"skill": namespace, "skill_digest": digest, "caller": caller_record(caller), "outcome": "ok"}
            await to_thread.run_sync(self.audit.append, "uninstall", body)
            await self._collect(())
        return skill

    async def prune(self) -> None:
        """Delete what was built for skills that are no longer installed, also by installs that were killed.

        While an install is under way nothing happens: that install prunes when it ends.
        """
        # Probed before the lock is taken, and remembered: an install that begins meanwhile doesn't wait for the probes.
        await self.runner.probe()
        await self._collect(self.runner.backends)

    def _read(self, request: InstallRequest) -> tuple[Source, SourceFiles]:
        source = resolve_source(request.source, builtins=builtin_sources(self.builtins), cwd=request.cwd)
        return source, read_source(source)

    @asynccontextmanager
    async def _source_builds(
        self, header: SkillHeader, interpreter: Interpreter, request: InstallRequest, on_step: OnStep
    ) -> AsyncIterator[SourceBuilds | None]:
        """Yield what finds and builds packages without wheels; None if the request allows no builds."""
        if not (request.allow_builds or request.allow_unsandboxed_builds):
            yield None
            return
        folder = await to_thread.run_sync(lambda: Path(mkdtemp(prefix="silo-sources-")))
        try:
            yield SourceBuilds(
                folder,
                header,
                interpreter,
                self.uv,
                self.build_sandbox,
                may_be_unconfined=request.allow_unsandboxed_builds,
                on_step=on_step,
            )
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))

    async def _lock(
        self,
        files: SourceFiles,
        header: SkillHeader,
        interpreter: Interpreter,
        builds: SourceBuilds | None,
        agree: AgreeToBuild,
        on_step: OnStep,
    ) -> Lock:
        if files.lock is None:
            on_step("locking the dependencies")
            if builds is None:
                return await make_lock(header, interpreter, self.uv)
            return await builds.lock(agree)
        lock = normalise(files.lock)
        await check_lock(lock, header, interpreter, self.uv)
        return lock

    async def _plan(
        self,
        source: Source,
        files: SourceFiles,
        lock: Lock,
        requirements: Requirements,
        builds: tuple[PlannedBuild, ...],
        header: SkillHeader,
    ) -> InstallPlan:
        digest = skill_digest(files.script, lock.text)
        installed = await to_thread.run_sync(self._installed, header.namespace)
        replaces = None if installed is None else installed.digest
        grants = await to_thread.run_sync(self._grants, header, digest)
        return InstallPlan(
            namespace=header.namespace,
            source=source.label,
            header=header,
            digest=digest,
            packages=requirements.packages,
            replaces=replaces,
            warnings=plan_warnings(builds, replaces=replaces, digest=digest),
            grants=grants,
            builds=builds,
            script=files.script,
        )

    def _grants(self, header: SkillHeader, digest: str) -> tuple[str, ...]:
        """Return what the code would get that it does not have; nothing for code that has the name already."""
        return () if self.grants.is_installed(header.namespace, digest) else self.grants.of(header)

    async def _ask(self, plan: InstallPlan, request: InstallRequest, agree: Agree, on_step: OnStep) -> str:
        """Return who agreed to what only a person or `silo.toml` can agree to; empty if the plan has nothing of that.

        `request` may come from an agent, and so may what its `agree` returns. Neither counts for such a plan.
        """
        if not await agree(plan):
            raise CallDenied(
                f"nobody agreed to install {plan.namespace!r}",
                hint=command("silo install --yes", "{} agrees without asking"),
            )
        if not plan.needs_person:
            return ""
        unconfined = [one.package for one in plan.builds if not one.is_confined]
        wants = "; ".join([*plan.grants, *(f"to build {package} without a sandbox" for package in unconfined)])
        if request.provision:
            if not plan.is_partial and self.provisioned.get(plan.namespace) == plan.digest:
                return "silo.toml"
            raise ApprovalRequired(
                f"{plan.namespace!r} was not installed: silo.toml doesn't name this code, which would get what only "
                f"a person may give it: {wants}",
                hint=f"if you know this code, {_provision(plan)}",
            )
        before = await to_thread.run_sync(self._installed, plan.namespace)
        question = install_question(plan, before, who(request.caller))
        try:
            return f"question {await self.confirm(question, request.caller, on_step)}"
        except ApprovalRequired as error:
            raise ApprovalRequired(
                f"{plan.namespace!r} was not installed, because only a person may give new code this: "
                f"{wants} (SILO_APPROVAL_REQUIRED: nobody can be asked here)",
                hint=f"install it in a terminal; or, to install it without a person, {_provision(plan)}",
            ) from error

    async def _record_builds(self, plan: InstallPlan, caller: Caller) -> None:
        """Record what is built, before it is."""
        body = {
            "skill": plan.namespace,
            "packages": [{"package": one.package, "hash": one.hash, "sandbox": one.is_confined} for one in plan.builds],
            "caller": caller_record(caller),
        }
        await to_thread.run_sync(self.audit.append, "build", body)

    async def _require_same_grants(self, plan: InstallPlan) -> None:
        """Check just before the end that the name holds nothing that nobody was asked about."""
        now = await to_thread.run_sync(self._grants, plan.header, plan.digest)
        gained = sorted(set(now) - set(plan.grants))
        if gained:
            raise CallDenied(
                f"{plan.namespace!r} was not installed: while it was being built, its name got {'; '.join(gained)}",
                hint="install it again, and the question names that as well",
            )

    async def _build(
        self,
        files: SourceFiles,
        header: SkillHeader,
        plan: InstallPlan,
        requirements: Requirements,
        interpreter: Interpreter,
        on_step: OnStep,
    ) -> Unit:
        """Build the environment and the image; the staging folder is deleted if the image does not take it over."""
        staged = await to_thread.run_sync(self.images.staging)
        try:
            await to_thread.run_sync((staged / "skill.py").write_bytes, files.script)
            await build_environment(
                staged / "env",
                requirements,
                interpreter,
                self.uv,
                name=plan.namespace,
                on_step=on_step,
            )
            base = await self.images.base(interpreter, on_step)
            on_step("building the image")
            layer = await self.images.layer(plan.digest, staged, base, on_step)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(lambda: shutil.rmtree(staged, ignore_errors=True))
        return await self.units.unit(replace(header, namespace=plan.namespace), interpreter.version, base, layer)

    async def _describe(self, place: Placement, unit: Unit, header: SkillHeader, on_step: OnStep) -> Metadata:
        on_step("running the script in a sandbox to read its tools")
        said = await self.runner.describe(place, unit, deadline=self.clock() + DESCRIBE_S, on_step=on_step)
        metadata = await to_thread.run_sync(read_metadata, said.skill, header)
        # A schema that can't check calls is refused now, not at the first call.
        for tool in metadata.tools:
            await to_thread.run_sync(to_checker, tool)
            await to_thread.run_sync(to_result_checker, tool)
        return metadata

    def _skill(self, plan: InstallPlan, metadata: Metadata, image: str, isolation: Isolation) -> Skill:
        return Skill(
            namespace=plan.namespace,
            digest=plan.digest,
            header=plan.header,
            tools=tuple(replace(tool, skill=plan.namespace) for tool in metadata.tools),
            folder=self.store.folder_of(plan.namespace, plan.digest),
            source=plan.source,
            instructions=metadata.instructions,
            installed_at=self.now().astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            image=image,
            described_by=isolation,
            packages=plan.packages,
        )

    @asynccontextmanager
    async def _recorded(
        self, event: str, plan: InstallPlan, caller: Caller, isolation: Isolation
    ) -> AsyncIterator[dict[str, str]]:
        """Record that an installation begins, and how it ends, with the facts that are put into what this yields.

        If the first can't be recorded, nothing is installed.
        """
        body = {
            "skill": plan.namespace,
            "skill_digest": plan.digest,
            "source": plan.source,
            "replaces": plan.replaces,
            "secrets": sorted(plan.header.secrets),
            "grants": list(plan.grants),
            "isolation": isolation.value,
            "caller": caller_record(caller),
        }
        await to_thread.run_sync(self.audit.append, event, {**body, "outcome": "begun"})
        outcome, facts = "ok", dict[str, str]()
        try:
            yield facts
        except SiloError as error:
            outcome = error.code
            raise
        except (get_cancelled_exc_class(), KeyboardInterrupt):
            outcome = "interrupted"
            raise
        except BaseException:
            outcome = "internal-error"
            raise
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(self.audit.append, event, {**body, **facts, "outcome": outcome})

    def _installed(self, namespace: str) -> Skill | None:
        return next((skill for skill in self.store.list() if skill.namespace == namespace), None)

    async def _collect(self, backends: tuple[str, ...]) -> None:
        """Delete what no installed skill uses, unless an install is under way, which may be building or using it."""
        async with self.store.no_install_in_progress() as is_alone:
            if not is_alone:
                return
            await to_thread.run_sync(self.store.sweep)
            skills = await to_thread.run_sync(self.store.list)
            references = [ImageReference.parse(skill.image) for skill in skills]
            images = [digest for one in references if one is not None for digest in (one.base, one.layer)]
            await to_thread.run_sync(self.prune_images, images)
            keep: list[Unit] = []
            for skill in skills:
                with suppress(SiloError):  # its image is gone, so what was made from it is of no use
                    keep.append(await self.units.built(skill))
            await self.runner.prune(backends, keep)


def _partial_plan(
    source: Source, files: SourceFiles, header: SkillHeader, builds: Sequence[PlannedBuild]
) -> InstallPlan:
    return InstallPlan(
        namespace=header.namespace,
        source=source.label,
        header=header,
        digest="",
        packages=(),
        replaces=None,
        warnings=plan_warnings(builds, replaces=None, digest=""),
        builds=tuple(builds),
        is_partial=True,
        script=files.script,
    )


def _provision(plan: InstallPlan) -> str:
    if plan.is_partial:
        return "put a lock beside the script, made on a machine where a person agrees to the builds"
    line = f'{plan.namespace} = "{plan.digest}"'
    return f"add {line} to [install.provision] in silo.toml, and use `silo install --provision`"


def _namespace(name: str) -> str:
    try:
        return check_namespace(name)
    except ValueError as error:
        raise UsageError(f"{name[:80]!r} can't be the name of a skill", hint=str(error)) from error
