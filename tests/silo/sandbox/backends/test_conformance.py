"""silo's own backends pass the suite that every backend has to pass."""

import pytest

from silo.sandbox.base import Backend
from silo.testing.conformance import SandboxConformance


class TestMicrovm(SandboxConformance):
    @pytest.fixture
    def backend(self, microvm: Backend) -> Backend:
        return microvm


class TestNamespace(SandboxConformance):
    hang_s = 1.0

    @pytest.fixture
    def backend(self, namespace: Backend) -> Backend:
        return namespace
