"""The routes of the page, and which requests each one accepts.

`guard` checks headers, `forms` reads forms, `views` and the templates decide how things look.

Everything runs in the page's one event loop, including the board's methods, which take milliseconds and block all other
requests meanwhile. So the page's state can't change between a check here and the action that relies on it. Only the
board can change, and the board checks again itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from urllib.parse import quote

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from silo_interaction.board import Board, PostedQuestion
from silo_interaction.page import views
from silo_interaction.page.feed import MAX_STREAMS, BoardFeed
from silo_interaction.page.forms import DECIDED_BY, MAX_REASON_CHARS, read_form, to_answer
from silo_interaction.page.guard import Refusal, Refused
from silo_interaction.page.middleware import GuardedApp
from silo_interaction.page.render import STATIC_TYPES, Renderer, static_files
from silo_interaction.page.sessions import (
    CODE_GUESSES,
    CODE_PERIOD_S,
    COOKIE,
    BrowserSession,
    RateLimit,
    Sessions,
    normalize_code,
)

_FAILURES, _FAILURE_PERIOD_S = 120, 60.0
"""Beyond this limit, a failing request gets a bare response that costs nothing. Requests that succeed are never
delayed."""
_MIN_SHOWN_S = 1.0
"""How long a question must have been shown before a yes counts: a second click, or a key held down, must not approve
what came up under it. The script of the page waits longer; this holds in a browser without scripts, too."""
_LINK_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")

_NOT_PAIRED = Refusal(
    404, "This browser is not paired", "Pair it below, or go to the tab that is already paired and look at its list."
)
_DEAD_LINK = Refusal(
    410,
    "This link does not work",
    "It may be too old, or was already opened in another browser. The list shows all questions that still wait.",
)
_FORGED = Refusal(
    403, "This form does not belong to this page", "Nothing was decided. Open the page again, and decide there."
)


def build_app(
    board: Board, sessions: Sessions, feed: BoardFeed, *, authority: str, renderer: Renderer, now: Callable[[], float]
) -> GuardedApp:
    """Return the page as an ASGI application that answers only to this authority, e.g. `127.0.0.1:4711`."""
    # FastAPI hands requests, forms and errors included, to any telemetry that the process has set up. None of it may
    # leave this process.
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": lambda scope: True,
        },
    )
    routes = _Routes(board, sessions, feed, renderer, authority=authority, now=now)
    for path, handler in (
        ("/", routes.front),
        ("/q/{token}", routes.front),
        ("/static/{name}", routes.static),
        ("/s/{path_secret}/", routes.queue),
        ("/s/{path_secret}/q/{question_id}", routes.question),
        ("/s/{path_secret}/follow/{token}", routes.follow),
        ("/s/{path_secret}/events", routes.events),
    ):
        app.add_api_route(path, handler, methods=["GET", "HEAD"], response_model=None)
    for path, handler in (
        ("/pair", routes.pair),
        ("/s/{path_secret}/q/{question_id}", routes.decide),
        ("/s/{path_secret}/leave", routes.leave),
    ):
        app.add_api_route(path, handler, methods=["POST"], response_model=None)
    app.add_exception_handler(HTTPException, routes.no_route)
    app.add_exception_handler(Refused, routes.refused)
    app.add_exception_handler(Exception, routes.failed)
    return GuardedApp(app, routes.refuse, authority)


class _Routes:
    """The handlers, one method for each route; the methods that they share are below."""

    def __init__(
        self,
        board: Board,
        sessions: Sessions,
        feed: BoardFeed,
        renderer: Renderer,
        *,
        authority: str,
        now: Callable[[], float],
    ) -> None:
        self._board = board
        self._sessions = sessions
        self._feed = feed
        self._renderer = renderer
        self._authority = authority
        self._now = now
        self._static = static_files()
        self._guesses = RateLimit(CODE_GUESSES, CODE_PERIOD_S, now)
        self._failures = RateLimit(_FAILURES, _FAILURE_PERIOD_S, now)

    # --- for every browser -------------------------------------------------------------------------------------------

    async def front(self, request: Request) -> Response:
        """Show only the pairing form. The board isn't asked about the link, so the response can't reveal anything."""
        return self._pairing(200, token=request.path_params.get("token", ""))

    async def static(self, request: Request) -> Response:
        """Send a style sheet, script or picture."""
        name = request.path_params["name"]
        if name not in self._static:
            raise Refused(_NOT_PAIRED)
        return Response(self._static[name], headers={"Content-Type": STATIC_TYPES[name]})

    async def pair(self, request: Request) -> Response:
        """Open a session for a pairing code."""
        form = await read_form(request)
        token = form.get("token", "")
        if not self._sessions.is_pairing_form(form.get("form", "")):
            return self._pairing(
                403, token=token, problem="This form was open for too long. The code was not used; try again."
            )
        if wait_s := self._guesses.wait_s:
            problem = f"Too many wrong codes. Try again in {views.duration(wait_s)}."
            return self._pairing(429, token=token, problem=problem, retry_after_s=wait_s)
        code = normalize_code(form.get("code", ""))
        if not code:
            # It can't be anybody's guess. If it counted, a sentence that was meant for another window and ended up
            # here would keep the person from pairing.
            return self._pairing(403, token=token, problem="This is no code. A code looks like 7K2M-Q9XD.")
        if not self._board.redeem(code):
            self._guesses.add()
            return self._pairing(403, token=token, problem="This code is wrong, used or expired. Get a new one.")
        opened = self._sessions.open()
        home = f"/s/{opened.path_secret}/"
        response = RedirectResponse(f"{home}follow/{token}" if _LINK_TOKEN.fullmatch(token) else home, status_code=303)
        # `sessions` explains the path. No `Secure`: the loopback interface has no TLS, and not every browser makes an
        # exception for it.
        response.set_cookie(
            COOKIE,
            opened.cookie_secret,
            path=home,
            httponly=True,
            samesite="strict",
            max_age=max(0, int(opened.session.expires_at - self._now())),
        )
        return response

    # --- for paired browsers -----------------------------------------------------------------------------------------

    async def queue(self, request: Request) -> Response:
        """Show all waiting questions."""
        session, path_secret = self._session(request)
        waiting = self._board.waiting()
        groups = views.queue(waiting, self._now())
        return self._page(
            "queue.html", path_secret, session, groups=groups, waiting=len(waiting), done=self._done(request)
        )

    async def question(self, request: Request) -> Response:
        """Show one question, or how it ended."""
        session, path_secret = self._session(request)
        posted = self._board.get(request.path_params["question_id"])
        if posted is None or not views.is_waiting(posted, self._now()):
            return self._gone(path_secret, session, posted, tried=False)
        return self._detail(path_secret, session, posted, done=self._done(request))

    async def follow(self, request: Request) -> Response:
        """Go to the question of a link. From then on, the link works only for this session."""
        session, path_secret = self._session(request)
        token = request.path_params["token"]
        posted = self._board.follow(token, session.name) if _LINK_TOKEN.fullmatch(token) else None
        if posted is None:
            return self._notice(_DEAD_LINK, home=f"/s/{path_secret}/")
        return RedirectResponse(_address(path_secret, posted.id), status_code=303)

    async def events(self, request: Request) -> Response:
        """Stream the changes of the board."""
        session, _ = self._session(request)
        if self._feed.viewers >= MAX_STREAMS:
            return Response(status_code=503, headers={"Retry-After": "10"})
        media_type = "text/event-stream"
        if request.method == "HEAD":
            return Response(media_type=media_type)
        return StreamingResponse(self._feed.stream(session, self._sessions.is_open), media_type=media_type)

    async def decide(self, request: Request) -> Response:
        """Record an answer."""
        session, path_secret = self._session(request)
        form = await read_form(request)
        if not self._sessions.is_csrf(session, form.get("csrf", "")):
            raise Refused(_FORGED)
        digest = form.get("digest", "")
        posted = self._board.get(request.path_params["question_id"])
        if posted is None or not views.is_waiting(posted, self._now()):
            return self._gone(path_secret, session, posted, tried=True)
        if posted.digest != digest:
            return self._changed(path_secret, session, posted)
        answer = to_answer(posted.question, form)
        is_hasty = self._sessions.shown_for_s(session, form.get("shown", "")) < _MIN_SHOWN_S
        if answer.approved and answer.value is None and is_hasty:
            return self._detail(path_secret, session, posted, hasty=True, status=409)
        outcome = self._board.decide(posted.id, digest, answer, by=DECIDED_BY)
        if outcome == "decided":
            return RedirectResponse(self._next(path_secret, posted), status_code=303)
        found = self._board.get(posted.id)
        if outcome == "changed" and found is not None and views.is_waiting(found, self._now()):
            return self._changed(path_secret, session, found)
        return self._gone(path_secret, session, found, tried=True)

    async def leave(self, request: Request) -> Response:
        """End the session."""
        session, path_secret = self._session(request)
        form = await read_form(request)
        if not self._sessions.is_csrf(session, form.get("csrf", "")):
            raise Refused(_FORGED)
        self._sessions.close(session)
        response = self._pairing(200, problem="This browser is no longer paired.", unpaired=path_secret)
        response.delete_cookie(COOKIE, path=f"/s/{path_secret}/", httponly=True, samesite="strict")
        return response

    # --- failing requests --------------------------------------------------------------------------------------------

    def refuse(self, refusal: Refusal, *, home: str = "/") -> Response:
        """Return the response to a refused request; beyond the limit, a bare one."""
        if wait_s := self._failures.wait_s:
            return Response("Too many failing requests.\n", 429, {"Retry-After": str(wait_s)}, "text/plain")
        self._failures.add()
        return self._notice(refusal, home=home)

    async def refused(self, request: Request, error: Exception) -> Response:
        """Answer a request that a route refused."""
        assert isinstance(error, Refused)
        token, path_secret = request.path_params.get("token", ""), request.path_params.get("path_secret", "")
        if error.refusal is not _NOT_PAIRED:
            is_paired = self._sessions.find(path_secret, _cookies(request.headers.getlist("cookie"))) is not None
            return self.refuse(error.refusal, home=f"/s/{path_secret}/" if is_paired else "/")
        if self._failures.wait_s:
            return self.refuse(error.refusal)
        self._failures.add()
        # The response must not tell whether the path secret, the cookie, the question or the link exists.
        return self._pairing(404, token=token, problem=error.refusal.title + ".", unpaired=path_secret)

    async def no_route(self, request: Request, error: Exception) -> Response:
        """Answer a request to an unknown address, or with a method that the address doesn't support."""
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            return self.refuse(Refusal(405, "This method is not used here", "Open the page in a browser."))
        return await self.refused(request, Refused(_NOT_PAIRED))

    async def failed(self, request: Request, error: Exception) -> Response:
        """Answer a request that ran into a bug."""
        return self._notice(
            Refusal(500, "Something went wrong", "Load the page again, and see whether the question still waits."),
            home="/",
        )

    # --- shared by the handlers --------------------------------------------------------------------------------------

    def _session(self, request: Request) -> tuple[BrowserSession, str]:
        path_secret = request.path_params["path_secret"]
        session = self._sessions.find(path_secret, _cookies(request.headers.getlist("cookie")))
        if session is None:
            raise Refused(_NOT_PAIRED)
        return session, path_secret

    def _next(self, path_secret: str, decided: PostedQuestion) -> str:
        """Return where to go after a decision: the next question, first of the same group, or the empty list."""
        waiting = [posted for posted in views.in_queue_order(self._board.waiting()) if posted.id != decided.id]
        alike = [posted for posted in waiting if posted.question.group == decided.question.group]
        target = _address(path_secret, (alike or waiting)[0].id) if waiting else f"/s/{path_secret}/"
        return f"{target}?done={quote(decided.id, safe='')}"

    def _done(self, request: Request) -> views.EndedQuestion | None:
        """Return the question that was decided just now. The address only names it; its state comes from the board."""
        posted = self._board.get(request.query_params["done"]) if "done" in request.query_params else None
        return None if posted is None or views.is_waiting(posted, self._now()) else views.ended(posted, self._now())

    def _detail(
        self,
        path_secret: str,
        session: BrowserSession,
        posted: PostedQuestion,
        *,
        done: views.EndedQuestion | None = None,
        changed: bool = False,
        hasty: bool = False,
        status: int = 200,
    ) -> HTMLResponse:
        ids = [other.id for other in views.in_queue_order(self._board.waiting())]
        at = ids.index(posted.id) if posted.id in ids else 0
        return self._page(
            "question.html",
            path_secret,
            session,
            status=status,
            done=done,
            changed=changed,
            hasty=hasty,
            shown=self._sessions.shown(session),
            question=views.detail(posted, self._now()),
            waiting=len(ids),
            before=_address(path_secret, ids[at - 1]) if at > 0 else "",
            after=_address(path_secret, ids[at + 1]) if at + 1 < len(ids) else "",
            max_reason=MAX_REASON_CHARS,
        )

    def _changed(self, path_secret: str, session: BrowserSession, posted: PostedQuestion) -> HTMLResponse:
        return self._detail(path_secret, session, posted, changed=True, status=409)

    def _gone(
        self, path_secret: str, session: BrowserSession, posted: PostedQuestion | None, *, tried: bool
    ) -> HTMLResponse:
        waiting = self._board.waiting()
        hint = "What you pressed just now decided nothing." if tried else ""
        if posted is None and not tried:  # otherwise the page shows how the question ended
            hint = "It was answered, or it expired."
        return self._page(
            "notice.html",
            path_secret,
            session,
            status=410,
            heading="This question no longer waits",
            hint=hint,
            ended=None if posted is None else views.ended(posted, self._now()),
            home=f"/s/{path_secret}/",
            waiting=len(waiting),
        )

    def _page(
        self, template: str, path_secret: str, session: BrowserSession, *, status: int = 200, **context: object
    ) -> HTMLResponse:
        csrf = self._sessions.csrf(session)
        return HTMLResponse(
            self._renderer.html(template, path_secret=path_secret, csrf=csrf, unpaired="", **context), status
        )

    def _notice(self, refusal: Refusal, *, home: str) -> HTMLResponse:
        page = self._renderer.html(
            "notice.html",
            path_secret="",
            csrf="",
            unpaired="",
            heading=refusal.title,
            hint=refusal.hint,
            ended=None,
            home=home,
            waiting=0,
        )
        return HTMLResponse(page, refusal.status)

    def _pairing(
        self, status: int, *, token: str = "", problem: str = "", unpaired: str = "", retry_after_s: int = 0
    ) -> HTMLResponse:
        page = self._renderer.html(
            "pair.html",
            path_secret="",
            csrf="",
            unpaired=unpaired,
            form=self._sessions.pairing_form(),
            token=token if _LINK_TOKEN.fullmatch(token) else "",
            problem=problem,
            authority=self._authority,
        )
        return HTMLResponse(page, status, headers={"Retry-After": str(retry_after_s)} if retry_after_s else None)


def _cookies(headers: Iterable[str]) -> list[str]:
    """Return all values of our cookie.

    Another server on this machine can set a cookie of the same name, and that must not hide ours.
    """
    values = []
    for pair in ";".join(headers).split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            values.append(value)
    return values


def _address(path_secret: str, question_id: str) -> str:
    return f"/s/{path_secret}/q/{quote(question_id, safe='')}"
