"""The routes of the page: who may ask for what. Headers: `guard`; forms: `forms`; looks: `views` and the templates.

Everything runs in the one loop of the page, the board's methods included: they take milliseconds, and as long as they run, no other
request of the page does. So nothing changes between a check here and what it was made for, except on the board, which checks by itself.
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
from silo_interaction.page.forms import BY, MOST_REASON_CHARS, read_form, to_answer
from silo_interaction.page.guard import Refusal, Refused
from silo_interaction.page.live import MOST_STREAMS, Live
from silo_interaction.page.middleware import Guarded
from silo_interaction.page.render import STATIC_TYPES, Renderer, static_files
from silo_interaction.page.sessions import (
    CODE_GUESSES,
    CODE_PERIOD_S,
    COOKIE,
    Limit,
    Session,
    Sessions,
    normal_code,
)

_FAILURES, _FAILURE_PERIOD_S = 120, 60.0
"""From here on a request that fails gets an answer that costs nothing. One that doesn't fail is never held up by those that do."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")

_NOT_PAIRED = Refusal(
    404, "This browser is not paired", "Pair it below, or go to the tab that is. What waits is in its list."
)
_DEAD_LINK = Refusal(
    410,
    "This link leads nowhere",
    "It may be too old, or opened in another browser already. What still waits is in the list.",
)
_FORGED = Refusal(403, "This form is not of this page", "Nothing was decided. Open the page again, and decide there.")


def build_app(
    board: Board, sessions: Sessions, live: Live, *, authority: str, renderer: Renderer, now: Callable[[], float]
) -> Guarded:
    """Return the page as an ASGI application that answers only to this authority, e.g. `127.0.0.1:4711`."""
    # FastAPI hands what comes in, forms and errors included, to whatever telemetry the process has set up; none of it may leave.
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
    routes = _Routes(board, sessions, live, renderer, authority=authority, now=now)
    for path, handler in (
        ("/", routes.front),
        ("/q/{token}", routes.front),
        ("/static/{name}", routes.static),
        ("/s/{place}/", routes.queue),
        ("/s/{place}/q/{question_id}", routes.question),
        ("/s/{place}/follow/{token}", routes.follow),
        ("/s/{place}/events", routes.events),
    ):
        app.add_api_route(path, handler, methods=["GET", "HEAD"], response_model=None)
    for path, handler in (
        ("/pair", routes.pair),
        ("/s/{place}/q/{question_id}", routes.decide),
        ("/s/{place}/leave", routes.leave),
    ):
        app.add_api_route(path, handler, methods=["POST"], response_model=None)
    app.add_exception_handler(HTTPException, routes.no_route)
    app.add_exception_handler(Refused, routes.refused)
    app.add_exception_handler(Exception, routes.failed)
    return Guarded(app, routes.refuse, authority)


class _Routes:
    """What each address answers. A method for a route each; what they have in common stands below them."""

    def __init__(
        self,
        board: Board,
        sessions: Sessions,
        live: Live,
        renderer: Renderer,
        *,
        authority: str,
        now: Callable[[], float],
    ) -> None:
        self._board = board
        self._sessions = sessions
        self._live = live
        self._renderer = renderer
        self._authority = authority
        self._now = now
        self._static = static_files()
        self._guesses = Limit(CODE_GUESSES, CODE_PERIOD_S, now)
        self._failures = Limit(_FAILURES, _FAILURE_PERIOD_S, now)

    # --- for everybody ---------------------------------------------------------------------------------------------

    async def front(self, request: Request) -> Response:
        """Show the pairing form, and nothing else. The board isn't even asked about the link: no answer depends on it."""
        return self._pairing(200, token=request.path_params.get("token", ""))

    async def static(self, request: Request) -> Response:
        """Send a style sheet, script or picture."""
        name = request.path_params["name"]
        if name not in self._static:
            raise Refused(_NOT_PAIRED)
        return Response(self._static[name], headers={"Content-Type": STATIC_TYPES[name]})

    async def pair(self, request: Request) -> Response:
        """Take a code for a session."""
        form = await read_form(request)
        token = form.get("token", "")
        if not self._sessions.is_pairing_form(form.get("form", "")):
            return self._pairing(
                403, token=token, problem="This form was open for too long. The code was not used; try again."
            )
        if wait_s := self._guesses.wait_s:
            problem = f"Too many wrong codes. Try again in {views.duration(wait_s)}."
            return self._pairing(429, token=token, problem=problem, retry_after_s=wait_s)
        code = normal_code(form.get("code", ""))
        if not (code and self._board.redeem(code)):
            self._guesses.add()
            return self._pairing(403, token=token, problem="This code is wrong, used up or too old. Get a new one.")
        opened = self._sessions.open()
        home = f"/s/{opened.place}/"
        response = RedirectResponse(f"{home}follow/{token}" if _TOKEN.fullmatch(token) else home, status_code=303)
        # Path: see `sessions`. No `Secure`: there is no TLS on the loopback interface, and not every browser makes an exception.
        response.set_cookie(
            COOKIE,
            opened.token,
            path=home,
            httponly=True,
            samesite="strict",
            max_age=max(0, int(opened.session.expires_at - self._now())),
        )
        return response

    # --- for paired browsers ---------------------------------------------------------------------------------------

    async def queue(self, request: Request) -> Response:
        """Show everything that waits."""
        session, place = self._session(request)
        waiting = self._board.waiting()
        groups = views.queue(waiting, self._now())
        return self._page("queue.html", place, session, groups=groups, waiting=len(waiting), done=self._done(request))

    async def question(self, request: Request) -> Response:
        """Show one question, or what became of it."""
        session, place = self._session(request)
        posted = self._board.get(request.path_params["question_id"])
        if posted is None or not views.waits(posted, self._now()):
            return self._gone(place, session, posted, tried=False)
        return self._detail(place, session, posted, done=self._done(request))

    async def follow(self, request: Request) -> Response:
        """Go to the question that a link leads to; the link is this session's from now on."""
        session, place = self._session(request)
        token = request.path_params["token"]
        posted = self._board.follow(token, session.name) if _TOKEN.fullmatch(token) else None
        if posted is None:
            return self._notice(_DEAD_LINK, home=f"/s/{place}/")
        return RedirectResponse(_address(place, posted.id), status_code=303)

    async def events(self, request: Request) -> Response:
        """Stream the news of the board."""
        session, _ = self._session(request)
        if self._live.viewers >= MOST_STREAMS:
            return Response(status_code=503, headers={"Retry-After": "10"})
        media_type = "text/event-stream"
        if request.method == "HEAD":
            return Response(media_type=media_type)
        return StreamingResponse(self._live.stream(session, self._sessions.is_open), media_type=media_type)

    async def decide(self, request: Request) -> Response:
        """Put an answer down."""
        session, place = self._session(request)
        form = await read_form(request)
        if not self._sessions.is_csrf(session, form.get("csrf", "")):
            raise Refused(_FORGED)
        digest = form.get("digest", "")
        posted = self._board.get(request.path_params["question_id"])
        if posted is None or not views.waits(posted, self._now()):
            return self._gone(place, session, posted, tried=True)
        if posted.digest != digest:
            return self._changed(place, session, posted)
        outcome = self._board.decide(posted.id, digest, to_answer(posted.question, form), by=BY)
        if outcome == "decided":
            return RedirectResponse(self._next(place, posted), status_code=303)
        found = self._board.get(posted.id)
        if outcome == "changed" and found is not None and views.waits(found, self._now()):
            return self._changed(place, session, found)
        return self._gone(place, session, found, tried=True)

    async def leave(self, request: Request) -> Response:
        """End the session."""
        session, place = self._session(request)
        form = await read_form(request)
        if not self._sessions.is_csrf(session, form.get("csrf", "")):
            raise Refused(_FORGED)
        self._sessions.close(session)
        response = self._pairing(200, problem="This browser is not paired any more.", unpaired=place)
        response.delete_cookie(COOKIE, path=f"/s/{place}/", httponly=True, samesite="strict")
        return response

    # --- when something is not as it should be -----------------------------------------------------------------------

    def refuse(self, refusal: Refusal, *, home: str = "/") -> Response:
        """Return the answer to a request that is refused. Past a limit it is a bare one."""
        if wait_s := self._failures.wait_s:
            return Response("Too many requests that fail.\n", 429, {"Retry-After": str(wait_s)}, "text/plain")
        self._failures.add()
        return self._notice(refusal, home=home)

    async def refused(self, request: Request, error: Exception) -> Response:
        """Answer a request that a route refused."""
        assert isinstance(error, Refused)
        token, place = request.path_params.get("token", ""), request.path_params.get("place", "")
        if error.refusal is not _NOT_PAIRED:
            is_paired = self._sessions.find(place, _cookies(request.headers.getlist("cookie"))) is not None
            return self.refuse(error.refusal, home=f"/s/{place}/" if is_paired else "/")
        if self._failures.wait_s:
            return self.refuse(error.refusal)
        self._failures.add()
        # The same for a place, a cookie, a question and a link that exist and that don't.
        return self._pairing(404, token=token, problem=error.refusal.title + ".", unpaired=place)

    async def no_route(self, request: Request, error: Exception) -> Response:
        """Answer a request to an address that there isn't, or by a method that it hasn't."""
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            return self.refuse(Refusal(405, "This method is not used here", "Open the page in a browser."))
        return await self.refused(request, Refused(_NOT_PAIRED))

    async def failed(self, request: Request, error: Exception) -> Response:
        """Answer a request that ran into a bug."""
        return self._notice(
            Refusal(
                500, "Something went wrong here", "Load the page again, and look whether the question still waits."
            ),
            home="/",
        )

    # --- what they have in common --------------------------------------------------------------------------------------

    def _session(self, request: Request) -> tuple[Session, str]:
        place = request.path_params["place"]
        session = self._sessions.find(place, _cookies(request.headers.getlist("cookie")))
        if session is None:
            raise Refused(_NOT_PAIRED)
        return session, place

    def _next(self, place: str, decided: PostedQuestion) -> str:
        """Return where to go after a decision: the next question, one of the same kind first; else the empty list."""
        waiting = [posted for posted in views.ordered(self._board.waiting()) if posted.id != decided.id]
        alike = [posted for posted in waiting if posted.question.group == decided.question.group]
        target = _address(place, (alike or waiting)[0].id) if waiting else f"/s/{place}/"
        return f"{target}?done={quote(decided.id, safe='')}"

    def _done(self, request: Request) -> views.Past | None:
        """Return what was decided just now. The address only names the question; what became of it is the board's to say."""
        posted = self._board.get(request.query_params["done"]) if "done" in request.query_params else None
        return None if posted is None or views.waits(posted, self._now()) else views.past(posted, self._now())

    def _detail(
        self,
        place: str,
        session: Session,
        posted: PostedQuestion,
        *,
        done: views.Past | None = None,
        changed: bool = False,
        status: int = 200,
    ) -> HTMLResponse:
        ids = [other.id for other in views.ordered(self._board.waiting())]
        at = ids.index(posted.id) if posted.id in ids else 0
        return self._page(
            "question.html",
            place,
            session,
            status=status,
            done=done,
            changed=changed,
            question=views.detail(posted, self._now()),
            waiting=len(ids),
            before=_address(place, ids[at - 1]) if at > 0 else "",
            after=_address(place, ids[at + 1]) if at + 1 < len(ids) else "",
            most_reason=MOST_REASON_CHARS,
        )

    def _changed(self, place: str, session: Session, posted: PostedQuestion) -> HTMLResponse:
        return self._detail(place, session, posted, changed=True, status=409)

    def _gone(self, place: str, session: Session, posted: PostedQuestion | None, *, tried: bool) -> HTMLResponse:
        waiting = self._board.waiting()
        hint = "What you pressed just now decided nothing." if tried else ""
        if posted is None and not tried:  # else the page tells what became of it
            hint = "It was answered, or its time is over."
        return self._page(
            "notice.html",
            place,
            session,
            status=410,
            heading="This question is not waiting any more",
            hint=hint,
            past=None if posted is None else views.past(posted, self._now()),
            home=f"/s/{place}/",
            waiting=len(waiting),
        )

    def _page(
        self, template: str, place: str, session: Session, *, status: int = 200, **context: object
    ) -> HTMLResponse:
        csrf = self._sessions.csrf(session)
        return HTMLResponse(self._renderer.html(template, place=place, csrf=csrf, unpaired="", **context), status)

    def _notice(self, refusal: Refusal, *, home: str) -> HTMLResponse:
        page = self._renderer.html(
            "notice.html",
            place="",
            csrf="",
            unpaired="",
            heading=refusal.title,
            hint=refusal.hint,
            past=None,
            home=home,
            waiting=0,
        )
        return HTMLResponse(page, refusal.status)

    def _pairing(
        self, status: int, *, token: str = "", problem: str = "", unpaired: str = "", retry_after_s: int = 0
    ) -> HTMLResponse:
        page = self._renderer.html(
            "pair.html",
            place="",
            csrf="",
            unpaired=unpaired,
            form=self._sessions.pairing_form(),
            token=token if _TOKEN.fullmatch(token) else "",
            problem=problem,
            authority=self._authority,
        )
        return HTMLResponse(page, status, headers={"Retry-After": str(retry_after_s)} if retry_after_s else None)


def _cookies(headers: Iterable[str]) -> list[str]:
    """Return all values of our cookie: another server on this machine can have set one of the same name, and must not hide ours."""
    values = []
    for pair in ";".join(headers).split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            values.append(value)
    return values


def _address(place: str, question_id: str) -> str:
    return f"/s/{place}/q/{quote(question_id, safe='')}"
