"""The built-in skill `jwt`, its functions called directly."""

import base64

import jwt as pyjwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo import AgentResponse
from silo.sdk.context import open_call

KEY = "a key for tests, which is long enough for HS512 as well as all others"


@pytest.fixture(scope="module")
def skill(load_script):
    return load_script("skills/jwt/skill.py")


@pytest.fixture
def key():
    with open_call(secrets={"JWT_KEY": KEY}):
        yield


def refused(response) -> str:
    assert isinstance(response, AgentResponse)
    assert response.status == "error"
    assert KEY not in (response.error_message or "")
    return response.raw_data["reason"]


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_signed_token_is_accepted_by_another_library_call_with_the_same_key(skill, algorithm):
    signed = skill.sign({"sub": "42"}, algorithm)
    assert signed["algorithm"] == algorithm
    assert pyjwt.decode(signed["token"], KEY, algorithms=[algorithm])["sub"] == "42"


@pytest.mark.usefixtures("key")
def test_what_was_signed_is_what_verify_returns(skill):
    signed = skill.sign({"sub": "42", "roles": ["admin"], "n": 1.5}, headers={"kid": "2024-01"}, expires_in_s=60)
    checked = skill.verify(signed["token"])
    assert checked["verified"] is True
    assert checked["claims"]["roles"] == ["admin"]
    assert checked["claims"]["exp"] == signed["expires_at"] == checked["claims"]["iat"] + 60
    assert checked["header"] == {"alg": "HS256", "kid": "2024-01", "typ": "JWT"}


@pytest.mark.usefixtures("key")
def test_a_token_expires_in_an_hour_unless_told_otherwise(skill):
    claims = skill.verify(skill.sign({})["token"])["claims"]
    assert claims["exp"] - claims["iat"] == 3600
    assert skill.sign({}, expires_in_s=None)["expires_at"] is None
    assert skill.sign({"exp": 4_000_000_000})["expires_at"] == 4_000_000_000


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("claims", "options", "reason"),
    [
        ({"exp": 1_000}, {}, "expired"),
        ({"nbf": 4_000_000_000}, {}, "not-yet-valid"),
        ({"aud": "them"}, {"audience": "us"}, "audience"),
        ({"aud": "them"}, {}, "audience"),
        ({}, {"audience": "us"}, "aud"),
        ({"iss": "them"}, {"issuer": "us"}, "issuer"),
        ({}, {"issuer": "us"}, "iss"),
        ({}, {"algorithms": ["HS512"]}, "algorithm"),
    ],
)
def test_a_token_that_does_not_pass_is_an_error_that_names_the_reason(skill, claims, options, reason):
    assert refused(skill.verify(skill.sign(claims)["token"], **options)) == reason


@pytest.mark.usefixtures("key")
def test_leeway_accepts_a_token_that_expired_just_now(skill):
    token = skill.sign({"iat": 1, "exp": pyjwt.decode(skill.sign({})["token"], KEY, ["HS256"])["iat"] - 5})["token"]
    assert refused(skill.verify(token)) == "expired"
    assert skill.verify(token, leeway_s=60)["verified"] is True


@pytest.mark.usefixtures("key")
def test_a_changed_token_is_refused_and_its_claims_are_not_returned(skill):
    header, _, signature = skill.sign({"role": "user"})["token"].split(".")
    forged = base64.urlsafe_b64encode(b'{"role":"admin"}').rstrip(b"=").decode()
    response = skill.verify(f"{header}.{forged}.{signature}")
    assert refused(response) == "signature"
    assert "admin" not in repr(response)


@pytest.mark.usefixtures("key")
def test_a_token_without_signature_is_refused(skill):
    token = pyjwt.encode({"sub": "42"}, "", algorithm="none")
    assert refused(skill.verify(token)) == "algorithm"
    assert refused(skill.verify(token.rstrip(".") + ".")) == "algorithm"


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("token", ["", "junk", "a.b.c", "..", "é.é.é", "x" * 100_000])
def test_what_is_no_token_is_malformed(skill, token):
    assert refused(skill.verify(token)) == "malformed"
    assert refused(skill.decode_unverified(token)) == "malformed"


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 31), ("HS384", 47), ("HS512", 63)])
def test_a_key_shorter_than_the_hash_is_refused_with_advice(skill, algorithm, size):
    with open_call(secrets={"JWT_KEY": "k" * size}):
        response = skill.sign({}, algorithm)
    assert refused(response) == "weak-key"
    assert "RFC 7518" in response.error_message
    assert "silo vault add JWT_KEY" in response.error_message
    with open_call(secrets={"JWT_KEY": "k" * (size + 1)}):
        assert skill.sign({}, algorithm)["algorithm"] == algorithm


def test_a_weak_key_is_refused_for_verifying_too(skill):
    with pytest.warns(pyjwt.warnings.InsecureKeyLengthWarning):
        token = pyjwt.encode({}, "short", algorithm="HS256")
    with open_call(secrets={"JWT_KEY": "short"}):
        assert refused(skill.verify(token)) == "weak-key"


def test_a_public_key_is_not_taken_for_a_shared_key(skill):
    """The attack of RFC 8725 §2.1: a token signed by HMAC with the text of a public key."""
    pem = "-----BEGIN PUBLIC KEY-----\n" + "A" * 64 + "\n-----END PUBLIC KEY-----\n"
    with open_call(secrets={"JWT_KEY": pem}):
        assert refused(skill.sign({})) == "claims"


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    "claims", [{"sub": 42}, {"iss": ["a"]}, {"jti": None}, {"exp": "tomorrow"}, {"nbf": True}, {"aud": 1}, {"aud": [1]}]
)
def test_registered_claims_of_the_wrong_type_are_refused_when_signing(skill, claims):
    assert refused(skill.sign(claims)) == "claims"


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("field", ["alg", "b64", "crit", "jku", "jwk", "x5u"])
def test_header_fields_that_decide_how_a_token_is_checked_are_refused(skill, field):
    assert refused(skill.sign({}, headers={field: "x"})) == "headers"


def test_reading_without_checking_needs_no_key_and_says_so(skill):
    token = pyjwt.encode({"sub": "42"}, KEY, algorithm="HS256")
    read = skill.decode_unverified(f" {token}\n")
    assert read["verified"] is False
    assert "NOT checked" in read["warning"]
    assert read["claims"] == {"sub": "42"}
    assert skill.skill.tools["decode_unverified"].secrets == ()


def test_the_warmup_needs_no_secret_and_may_run_again(skill):
    skill.warm()
    skill.warm()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
registered = {"iss", "sub", "jti", "exp", "nbf", "iat", "aud"}


@given(claims=st.dictionaries(st.text().filter(lambda name: name not in registered), json_values, max_size=5))
def test_any_private_claims_survive_signing_and_verifying(skill, claims):
    with open_call(secrets={"JWT_KEY": KEY}):
        returned = skill.verify(skill.sign(claims)["token"])["claims"]
    assert {name: returned[name] for name in claims} == claims
