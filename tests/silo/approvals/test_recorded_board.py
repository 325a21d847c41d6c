"""Decisions on the page are in the audit log, even if no call uses them."""

from silo_interaction import Answer, Question

from silo.approvals.recorded_board import RecordedBoard
from silo.approvals.store import Decisions


def boards(tmp_path):
    records, decisions = [], Decisions(tmp_path)
    return records, decisions, RecordedBoard(decisions, lambda event, **facts: records.append((event, facts)))


def put_up(decisions, key="a"):
    question = Question("Run demo.echo", "an agent", grace_s=60)
    return decisions.post(key * 64, question, subject="demo.echo", principal="p", stands_s=60, profile={})[0]


def test_each_decision_is_recorded_once_with_its_tool_and_reason(tmp_path):
    records, decisions, board = boards(tmp_path)
    posted, other = put_up(decisions), put_up(decisions, "b")
    assert board.decide(posted.id, posted.digest, Answer(True, "yes", grace=True), by="the page") == "decided"
    assert board.decide(posted.id, posted.digest, Answer(True, "yes"), by="the page") == "gone"
    assert board.decide(other.id, "0" * 64, Answer(True, "yes"), by="the page") == "changed"
    assert board.decide(other.id, other.digest, Answer(False, "no" * 500), by="the page") == "decided"
    assert [(event, facts["verdict"], facts["question"]) for event, facts in records] == [
        ("approval", "approved", posted.id),
        ("approval", "denied", other.id),
    ]
    assert records[0][1] | {"tool": "demo.echo", "by": "the page", "reason": "yes", "grace": True} == records[0][1]
    assert len(records[1][1]["reason"]) == 200
    decisions.close()


def test_a_browser_that_was_paired_is_recorded_and_a_wrong_code_is_not(tmp_path):
    records, decisions, board = boards(tmp_path)
    code = decisions.new_code()
    assert not board.redeem("0000-0000")
    assert board.redeem(code)
    assert [facts["verdict"] for _, facts in records] == ["paired"]
    assert code not in str(records)
    decisions.close()


def test_it_looks_as_the_store_does(tmp_path):
    _, decisions, board = boards(tmp_path)
    posted = put_up(decisions)
    assert board.waiting() == decisions.waiting() == [posted]
    assert board.get(posted.id) == posted
    assert board.version() == decisions.version()
    assert board.follow("x" * 32, "session") is None
    decisions.close()
