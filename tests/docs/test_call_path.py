"""The page on how a call works names the steps of `CallPipeline.run`, in their order."""

import inspect
import re

from silo.calls.pipeline import CallPipeline

STEPS = {
    "resolve": "self.resolve(",
    "check": "self.check(",
    "decide": "self.decide(",
    "place": "self.place(",
    "obtain": "self.approvals.obtain(",
    "record": "record.begin(",
    "lease": "self.secrets.lease(",
    "use": "self.approvals.use(",
    "run": "self._run(",
    "redact": "self._redact,",
}
"""Each step of the drawing, and how the function calls it."""


def test_the_drawing_has_the_steps_in_their_order(pages):
    drawn = re.findall(r"[├└]─ ([a-z]+)", pages["docs/explanation/how-a-call-works.md"])
    assert drawn == [*STEPS, "record"]  # the last one is `trail`, which is around all of them
    source = inspect.getsource(CallPipeline.run)
    places = [source.index(called) for called in STEPS.values()]
    assert places == sorted(places)


def test_each_step_has_a_paragraph(pages):
    told = re.findall(r"^\*\*([A-Z][a-z]+)[a-z ]*\.\*\*", pages["docs/explanation/how-a-call-works.md"], re.MULTILINE)
    assert [name.lower() for name in told] == [*STEPS, "record"]
