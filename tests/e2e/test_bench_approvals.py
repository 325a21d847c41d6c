"""`silo bench approvals`: its report. Its figures are only meaningful on a quiet machine, so no test judges them."""

import statistics


def test_the_document_has_every_sample_and_leaves_nothing_behind(new_silo):
    silo = new_silo()
    document = silo.run("bench", "approvals", "--runs", "3", "--json").json
    assert (document["benchmark"], document["runs"]) == ("approvals", 3)
    assert document["machine"].keys() >= {"cpu", "cores", "system", "python", "load"}
    assert document["first_question_to_page_s"] > 0
    measured = ("question_to_page_s", "page_with_100_questions_s", "calls_alone_s", "calls_beside_50_that_wait_s")
    for name in measured:
        assert len(document[name]["samples"]) == 3
        assert statistics.median(document[name]["samples"]) == document[name]["median"] > 0
    beside, alone = document["calls_beside_50_that_wait_s"]["median"], document["calls_alone_s"]["median"]
    assert abs(document["ratio_beside_to_alone"] - beside / alone) < 0.001
    assert not list((silo.home.parent / "tmp").iterdir())
    assert not (silo.home / "state.db").exists(), "nobody was asked anything in the user's own state"
