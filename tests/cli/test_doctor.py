"""`silo doctor`: what it reports, and that its exit status says whether calls can run as strongly as configured."""

import json


def test_a_working_machine_is_reported_and_succeeds(silo, golden):
    found = silo("doctor", "--json")
    assert (found.status, found.err) == (0, "")
    document = found.json
    assert document["uv"]["problem"] is None
    assert document["uv"]["version"][0].isdigit()
    document["uv"]["version"] = document["python"]["version"] = "VERSION"
    golden("doctor.json", json.dumps(document, indent=2, sort_keys=True) + "\n")


def test_the_text_names_backends_and_what_calls_get(silo):
    found = silo("doctor")
    assert (found.status, found.err) == (0, "")
    assert "microvm  yes    a fake" in found.out
    assert "calls get      microvm" in found.out
    assert "SILO_MASTER_KEY is set" in found.out


def test_a_machine_without_a_sandbox_exits_with_5_and_still_reports_everything(silo):
    silo.works = False
    found = silo("doctor", "--json")
    assert (found.status, found.code, found.hint) == (5, "sandbox-unavailable", "tell it to")
    assert found.json["chosen"] is None
    assert found.json["backends"] == [
        {
            "isolation": "microvm",
            "works": False,
            "detail": "a fake",
            "missing": ["it was told not to work"],
            "notes": [],
            "hint": "tell it to",
        }
    ]
    text = silo("doctor")
    assert text.status == 5
    assert "missing: it was told not to work" in text.out
    assert "hint: tell it to" in text.out


def test_a_configured_backend_that_is_not_here_is_no_sandbox(silo):
    silo.environ["SILO_BACKEND"] = "namespace"
    found = silo("doctor", "--json")
    assert (found.status, found.code) == (5, "sandbox-unavailable")
    assert "sandbox.backend" in found.hint
    assert found.json["chosen"] is None
    assert found.json["config"]["changed"] == {"sandbox.backend": "SILO_BACKEND"}


def test_a_damaged_vault_is_a_finding_among_others(silo):
    (silo.home / "credentials.silo").write_bytes(b"no vault")
    (silo.home / "credentials.silo").chmod(0o600)
    found = silo("doctor", "--json")
    assert found.status == 0
    assert "credentials.silo" in found.json["vault"]["problem"]
    assert "credentials.silo" in silo("doctor").out


def test_the_key_itself_is_nowhere_in_the_report(silo):
    for found in (silo("doctor"), silo("doctor", "--json"), silo("vault", "status"), silo("config", "show")):
        assert silo.environ["SILO_MASTER_KEY"] not in found.out + found.err
