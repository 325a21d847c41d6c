"""`SyncRuntime` has everything that `Runtime` has, under the same names and with the same parameters."""

import inspect

import pytest

import silo.runtime
from silo.runtime import Runtime
from silo.sync import SyncRuntime

AWAITED = {"agree"}
"""Parameters that `Runtime` awaits and `SyncRuntime` does not."""


def public(kind):
    return {name: member for name, member in vars(kind).items() if not name.startswith("_")}


def parameters(method):
    return [
        (one.name, one.kind, one.default if not callable(one.default) else "a function", one.annotation)
        for one in inspect.signature(method, follow_wrapped=False).parameters.values()
        if one.name not in AWAITED
    ]


def own_parameters(member):
    """Return the parameters that a call is checked against; a derived method has those of the method that it wraps."""
    return parameters(getattr(member, "__wrapped__", member))


def test_nothing_is_missing_and_nothing_is_added():
    assert set(public(SyncRuntime)) == set(public(Runtime))


@pytest.mark.parametrize("name", sorted(public(Runtime)))
def test_each_method_and_property_takes_and_returns_the_same(name):
    one, other = public(Runtime)[name], public(SyncRuntime)[name]
    if isinstance(one, property):
        assert isinstance(other, property)
        one, other = one.fget, other.fget
    else:
        assert not inspect.iscoroutinefunction(other)
        assert getattr(other, "__wrapped__", one) is one, "it is derived from the method of that name"
        assert other.__name__ == name
    assert own_parameters(one) == own_parameters(other)
    assert inspect.signature(one).return_annotation == inspect.signature(other).return_annotation


def test_both_are_made_with_the_same_arguments():
    assert parameters(Runtime.__init__) == parameters(SyncRuntime.__init__)


def test_it_is_imported_from_the_runtime_as_ever():
    assert silo.runtime.SyncRuntime is SyncRuntime
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        silo.runtime.Nothing  # noqa: B018 - reading it is the test
