# /// script
# requires-python = ">=3.11"
# dependencies = ["pyjwt>=2.10.1,<3"]
#
# [tool.silo]
# namespace = "jwt"
# description = "Sign and verify JSON Web Tokens with a key that the agent never sees."
# memory_mib = 256
# timeout_s = 15
#
# [tool.silo.secrets.JWT_KEY]
# deliver = "stdin"
# description = "The shared key for HS256, HS384 and HS512: at least 32 random bytes."
# ///
"""Sign and verify JSON Web Tokens (JWT, RFC 7519) with a secret key that stays in the vault.

Only the HMAC algorithms: one key signs and verifies. Tokens that others sign with RSA or elliptic curves, and keys that
are fetched from an address, are not handled here.
"""

import time
from typing import Annotated, Any, Literal, TypedDict

import jwt

from silo import AgentResponse, Range, Skill, require_secret

skill = Skill("jwt")

Algorithm = Literal["HS256", "HS384", "HS512"]

MIN_KEY_BYTES: dict[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""A key must not be shorter than the hash it feeds (RFC 7518 §3.2); PyJWT only warns."""

MAX_TOKEN_CHARS = 64 * 1024
"""Eight times what web servers accept in a header by default; a longer token is probably a mistake."""

MAX_LEEWAY_S = 300
"""Clocks that differ by more than five minutes should be fixed, not tolerated."""


class Signed(TypedDict):
    """A new token, its algorithm, and when it expires (seconds since 1970, or null)."""

    token: str
    algorithm: str
    expires_at: int | None


class Verified(TypedDict):
    """A token's header and claims, after its signature and claims were checked."""

    verified: Literal[True]
    header: dict[str, Any]
    claims: dict[str, Any]


class Unverified(TypedDict):
    """A token's header and claims, which nobody checked."""

    verified: Literal[False]
    warning: str
    header: dict[str, Any]
    claims: dict[str, Any]


class _RefusedError(Exception):
    """A tool can't do what was asked; `reason` is a stable word, the text is for a model to act on."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@skill.tool(title="Sign a token", secrets=["JWT_KEY"], read_only=True)
def sign(
    claims: dict[str, Any],
    algorithm: Algorithm = "HS256",
    expires_in_s: Annotated[int, Range(ge=1)] | None = 3600,
    headers: dict[str, Any] | None = None,
) -> Signed | AgentResponse:
    """Sign claims as a JSON Web Token with the key JWT_KEY.

    Adds `iat` (issued at) and `exp` (expires), unless the claims bring their own.

    Args:
        claims: the payload, e.g. {"sub": "42", "aud": "https://api.example.com"}. `sub`, `iss` and `jti` must be
            strings.
        algorithm: the HMAC algorithm.
        expires_in_s: seconds until the token expires; null for a token that never does. Not used if the claims hold
            `exp`.
        headers: further fields of the token's header, e.g. {"kid": "2024-01"}. `alg` and `typ` are set by the tool.
    """
    try:
        payload = _payload(claims, expires_in_s, now=int(time.time()))
        key = _key(algorithm)
        token = jwt.encode(payload, key, algorithm=algorithm, headers=_headers(headers or {}))
    except _RefusedError as refused:
        return _failed(refused)
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        return _failed(_RefusedError("claims", f"The token can't be signed: {error}."))
    if len(token) > MAX_TOKEN_CHARS:
        return _failed(
            _RefusedError("too-long", f"The token would have {len(token):,} characters; put less into the claims.")
        )
    return {"token": token, "algorithm": algorithm, "expires_at": payload.get("exp")}


@skill.tool(title="Verify a token", secrets=["JWT_KEY"], read_only=True, idempotent=True)
def verify(
    token: str,
    algorithms: list[Algorithm] | None = None,
    audience: str | None = None,
    issuer: str | None = None,
    leeway_s: Annotated[int, Range(ge=0, le=MAX_LEEWAY_S)] = 0,
) -> Verified | AgentResponse:
    """Check a token's signature with the key JWT_KEY, and its times, audience and issuer; return its claims.

    A token that does not pass is an error that names the reason, and its claims are not returned.

    Args:
        token: the JSON Web Token in its compact form, `header.payload.signature`.
        algorithms: those that are accepted; default ["HS256"].
        audience: who must be among the token's `aud`. Needed if the token has one.
        issuer: what the token's `iss` must be.
        leeway_s: seconds by which clocks may differ.
    """
    try:
        accepted = list(algorithms or ["HS256"])
        algorithm = _read(token)["header"].get("alg")
        if algorithm not in accepted:
            raise _RefusedError(
                "algorithm",
                f"The token is signed with {algorithm!r:.40}, and {', '.join(accepted)} is accepted. "
                "Widen `algorithms` only if you know that its issuer uses another one.",
            )
        checked = jwt.decode_complete(
            token,
            _key(algorithm),
            algorithms=accepted,
            audience=audience,
            issuer=issuer,
            leeway=leeway_s,
        )
    except _RefusedError as refused:
        return _failed(refused)
    except jwt.PyJWTError as error:
        return _failed(_explain(error))
    return {"verified": True, "header": checked["header"], "claims": checked["payload"]}


@skill.tool(title="Read a token WITHOUT checking it", secrets=[], read_only=True, idempotent=True)
def decode_unverified(token: str) -> Unverified | AgentResponse:
    """Show a token's header and claims WITHOUT checking its signature. Anybody can have written them: never trust them.

    For looking at a token, e.g. to see why `verify` refuses it. Needs no key.

    Args:
        token: the JSON Web Token in its compact form, `header.payload.signature`.
    """
    try:
        parts = _read(token)
    except _RefusedError as refused:
        return _failed(refused)
    return {
        "verified": False,
        "warning": "The signature was NOT checked; anybody can have written these claims.",
        "header": parts["header"],
        "claims": parts["payload"],
    }


@skill.instructions()
def manual() -> str:
    """Tell a model how to use the skill."""
    return (
        "`sign` makes a token, `verify` checks one; both use the key JWT_KEY, which you never see and need not ask "
        "for. Decide nothing on what `decode_unverified` returns: it checks nothing. If a token has an `aud`, "
        "`verify` needs `audience`. If a tool says that the key is too short, a person must add a longer one to "
        "the vault; you can't."
    )


@skill.warmup()
def warm() -> None:
    """Sign and verify once with a key that is used for nothing else, so that all code is in memory before a call."""
    key = "warm-up only, never a secret ".ljust(64, ".")
    for algorithm in MIN_KEY_BYTES:
        claims = _payload({"sub": "warm", "aud": "warm"}, 60, now=int(time.time()))
        token = jwt.encode(claims, key, algorithm=algorithm, headers=_headers({"kid": "1"}))
        jwt.decode_complete(token, key, algorithms=[algorithm], audience="warm", leeway=60)
    decode_unverified(token)
    _failed(_explain(jwt.ExpiredSignatureError("warm")))


def _key(algorithm: str) -> str:
    """Return the key from the vault, if it is long enough for the algorithm."""
    key = require_secret("JWT_KEY")
    size = len(key.encode())
    if size < MIN_KEY_BYTES[algorithm]:
        raise _RefusedError(
            "weak-key",
            f"JWT_KEY is too short for {algorithm}: {size} bytes, and RFC 7518 §3.2 wants at least "
            f"{MIN_KEY_BYTES[algorithm]}. A person must make a new one, "
            "`openssl rand -base64 64 | tr -d '\\n' | silo vault add JWT_KEY`, "
            "and give it to all who verify these tokens.",
        )
    return key


def _payload(claims: dict[str, Any], expires_in_s: int | None, *, now: int) -> dict[str, Any]:
    """Return the claims with `iat` and `exp`; check the types that RFC 7519 §4.1 demands for registered claims."""
    for name in ("iss", "sub", "jti"):
        if name in claims and not isinstance(claims[name], str):
            raise _RefusedError(
                "claims", f"The claim {name!r} must be a string (RFC 7519 §4.1), e.g. {str(claims[name])[:40]!r}."
            )
    for name in ("exp", "nbf", "iat"):
        if name in claims and (isinstance(claims[name], bool) or not isinstance(claims[name], int | float)):
            raise _RefusedError("claims", f"The claim {name!r} must be a number of seconds since 1970 (RFC 7519 §2).")
    audience = claims.get("aud", "")
    if not (isinstance(audience, str) or (isinstance(audience, list) and all(isinstance(a, str) for a in audience))):
        raise _RefusedError("claims", "The claim 'aud' must be a string or a list of strings (RFC 7519 §4.1.3).")
    payload = {"iat": now, **claims}
    if "exp" not in payload and expires_in_s is not None:
        payload["exp"] = now + expires_in_s
    return payload


def _headers(headers: dict[str, Any]) -> dict[str, Any]:
    """Return the additional header fields, without those that decide how a token is checked."""
    # `b64` and `crit` change what is signed (RFC 7797). `jku` and `x5u` make careless verifiers fetch a key from an
    # address.
    for name in ("alg", "typ", "b64", "crit", "jku", "jwk", "x5u", "x5c"):
        if name in headers:
            raise _RefusedError("headers", f"The header field {name!r} can't be set; leave it out.")
    return headers


def _read(token: str) -> dict[str, Any]:
    """Return header and payload of a token without checking anything but its form."""
    if len(token) > MAX_TOKEN_CHARS:
        raise _RefusedError("malformed", f"A token of {len(token):,} characters; at most {MAX_TOKEN_CHARS:,} are read.")
    try:
        return jwt.decode_complete(token.strip(), options={"verify_signature": False})
    except (jwt.PyJWTError, RecursionError) as error:
        raise _RefusedError(
            "malformed", f"Not a JSON Web Token: {error}. Expected `header.payload.signature`."
        ) from error


def _explain(error: jwt.PyJWTError) -> _RefusedError:
    """Turn PyJWT's error into a reason and a text. The order matters, because some classes derive from others."""
    if isinstance(error, jwt.ExpiredSignatureError):
        return _RefusedError("expired", "The token has expired. Its issuer must make a new one.")
    if isinstance(error, jwt.ImmatureSignatureError):
        return _RefusedError(
            "not-yet-valid", "The token is not valid yet (`nbf` or `iat` lies ahead). Clocks may differ: `leeway_s`."
        )
    if isinstance(error, jwt.InvalidSignatureError):
        return _RefusedError(
            "signature", "The signature is wrong: another key signed this token, or somebody changed it."
        )
    if isinstance(error, jwt.InvalidAudienceError):
        return _RefusedError("audience", f"{error}: give `audience` as one of those that the token is meant for.")
    if isinstance(error, jwt.InvalidIssuerError):
        return _RefusedError("issuer", f"{error}: the token's `iss` is not the one in `issuer`.")
    if isinstance(error, jwt.MissingRequiredClaimError):
        return _RefusedError(
            error.claim, f"The token has no claim {error.claim!r}, which `audience` or `issuer` asks for."
        )
    return _RefusedError("invalid", f"The token is not valid: {error}.")


def _failed(refused: _RefusedError) -> AgentResponse:
    return AgentResponse(
        raw_data={"reason": refused.reason},
        status="error",
        error_message=str(refused),
    )


if __name__ == "__main__":
    skill.run()
