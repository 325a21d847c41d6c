"""Check a request's method and headers before anything else, and define the headers of every response. Pure.

`silo_interaction.page.app` checks sessions and form tokens. The rules here are for browsers: they keep hostile pages
from using a person's browser. A program such as curl can send any header, which doesn't help it without a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with that, browsers send `Origin: null` with our own forms (Fetch §3.2, "append a request
    # Origin header"), and the Origin would be useless. This value sends no referrer to other origins either, ports
    # included.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), clipboard-read=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""On every response, errors included."""

_FRAME_DESTINATIONS = {"embed", "fencedframe", "frame", "iframe", "object"}
_SINGLE_HEADERS = {b"content-type", b"host", b"origin", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site"}
"""The headers that are checked here; each may occur once."""


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused, for the person in front of the browser.

    Attributes:
        status: the HTTP status.
        title: what is wrong.
        hint: what to do next.
        retry_after_s: seconds until another try may succeed; 0 if that isn't known.
    """

    status: int
    title: str
    hint: str
    retry_after_s: int = 0


class Refused(Exception):
    """This request is answered with a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.title)
        self.refusal = refusal


def check(method: str, path: str, headers: Sequence[tuple[bytes, bytes]], authority: str) -> Refusal | None:
    """Return why this request is refused, or None if it may go on.

    Args:
        headers: with names in lower case.
        authority: what `Host` must be, e.g. `127.0.0.1:4711`.
    """
    seen: dict[bytes, str] = {}
    for name, value in headers:
        if name in _SINGLE_HEADERS:
            if name in seen:
                return Refusal(400, "This request has a header twice", "Open the page again.")
            seen[name] = value.decode("latin-1")
    # Checked first: a name that points to 127.0.0.1 (DNS rebinding) makes any page same-origin with this one.
    if seen.get(b"host") != authority:
        return Refusal(421, "This is not the address of this page", f"Open http://{authority}/ instead.")
    if method not in {"GET", "HEAD", "POST"}:
        return Refusal(405, "This method is not used here", "Open the page in a browser.")
    if seen.get(b"sec-fetch-dest") in _FRAME_DESTINATIONS:
        return Refusal(
            403, "This page does not open inside another one", f"Open http://{authority}/ in a tab of its own."
        )
    if method == "POST":
        return _check_post(seen, f"http://{authority}")
    return _check_get(path, seen)


def _check_get(path: str, seen: dict[bytes, str]) -> Refusal | None:
    site = seen.get(b"sec-fetch-site", "none")
    if site in {"none", "same-origin"}:
        return None
    # `same-site` is as bad as `cross-site`: it means any port of 127.0.0.1, including an agent's own server.
    if path.startswith(("/s/", "/static/")):
        return Refusal(
            403, "Another page led here", "Open this address in a tab of its own, or go to the tab that is open."
        )
    if seen.get(b"sec-fetch-mode") != "navigate" or seen.get(b"sec-fetch-dest") != "document":
        return Refusal(403, "Another page asked for this", "Open this address in a tab of its own.")
    return None


def _check_post(seen: dict[bytes, str], origin: str) -> Refusal | None:
    given, site = seen.get(b"origin"), seen.get(b"sec-fetch-site")
    # Every browser sends at least one of the two with a form, and no page can change either.
    if (given is None and site is None) or given not in {None, origin} or site not in {None, "same-origin"}:
        return Refusal(
            403, "This form was sent by another page", "Nothing was decided. Open the page, and decide there."
        )
    media_type = seen.get(b"content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        return Refusal(415, "This is not a form", "Nothing was decided. Open the page, and decide there.")
    return None
