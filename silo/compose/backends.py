"""Which backends there are, strongest first, and the choice among them."""

from __future__ import annotations

from pathlib import Path

from silo.compose.settings import kernel_folder
from silo.config.schema import Config
from silo.runners.choose import BackendChoice
from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.backends.namespace.backend import NamespaceBackend
from silo.sandbox.base import Backend
from silo.sandbox.image import Images


def build_backends(home: Path, config: Config, images: Images, *, resident: bool) -> tuple[Backend, ...]:
    """Return silo's backends, strongest first; the type checker proves that each fits the protocol.

    Args:
        home: where they keep what they prepare.
        config: how many guests to keep warm, how much memory copies of templates may take, and which limits guests may
            lack.
        images: the images that units are made of.
        resident: whether this process lives long enough for warm guests to be of use.
    """
    warm = config.sandbox.warm if resident else 0
    return (
        MicrovmBackend(
            home=home,
            images=images,
            kernel_folder=kernel_folder(home, config),
            warm=warm,
            template_memory_mib=config.sandbox.template_memory_mib,
        ),
        NamespaceBackend(allow_unlimited=config.sandbox.allow_unlimited),
    )


def choice_of(config: Config) -> BackendChoice:
    """Return the choice among the backends that the user allows."""
    named = None if config.sandbox.backend == "auto" else config.sandbox.backend
    return BackendChoice(named, config.sandbox.min_isolation)
