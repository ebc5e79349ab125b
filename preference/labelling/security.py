"""Who may talk to the page's server: hosts, origins, tokens, sizes, and the headers that hold a browser to it.

On this machine alone anybody may label, as whoever can open the page could read the files too. At any other address a
one-time URL is told on the terminal; whoever opens it gets a cookie, and a new URL is told for the next person.
"""

import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 64 * 1024
COOKIE = "rllab_session"
MOST_WRONG, WRONG_SECONDS = 10, 60.0
"""So many wrong tokens within so many seconds, and no more are looked at for as long."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}  # fmt: skip


class Door:
    """One-time tokens, and the sessions of those who came in by one."""

    def __init__(self, announce: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`announce` tells a new token to whoever runs the server."""
        self._announce, self._clock = announce, clock
        self._sessions: set[bytes] = set()
        self._wrong: deque[float] = deque(maxlen=MOST_WRONG)
        self._token = ""
        self.renew()

    def renew(self) -> None:
        """Make the token that the next person comes in by."""
        self._token = secrets.token_urlsafe(24)
        self._announce(self._token)

    def enter(self, token: str) -> str | None:
        """A session for the right token, which is used up by that; None for a wrong one."""
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            self._wrong.append(self._clock())
            return None
        session = secrets.token_urlsafe(32)
        self._sessions.add(_digest(session))
        self.renew()
        return session

    def closed(self) -> bool:
        """Whether there were so many wrong tokens that none is looked at."""
        return len(self._wrong) == MOST_WRONG and self._clock() - self._wrong[0] < WRONG_SECONDS

    def admits(self, session: str) -> bool:
        """Whether this is the session of somebody who came in."""
        return _digest(session) in self._sessions


def _digest(session: str) -> bytes:
    """What is compared in place of the session itself, so that how long it takes tells nothing of it."""
    return hashlib.sha256(session.encode()).digest()


class Guard:
    """ASGI middleware that lets through what the page itself would send, and nothing else."""

    def __init__(self, app: ASGIApp, hosts: Callable[[str], bool], door: Door | None) -> None:
        """`hosts` says whether a host name is the server's own; `door`: None where no token is needed."""
        self.app, self.hosts, self.door = app, hosts, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        refusal = self._refusal(request) or self._entrance(request)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self.app(scope, _limited(receive), _with_headers(send))

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        host = _host_name(headers.get("host", ""))
        if not self.hosts(host):
            return refused(421, f"This server does not answer for the host '{host}'.")
        if request.method not in ("GET", "HEAD", "POST"):
            return refused(405, f"{request.method} is not used here.")
        origin = headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{headers.get('host', '')}":
            return refused(403, "This request comes from another site.")
        foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        # A link from elsewhere may open the page itself, which changes nothing.
        if foreign and (request.method != "GET" or request.url.path.startswith("/api/")):
            return refused(403, "This request comes from another site.")
        if request.method == "POST":
            return _body_refusal(headers)
        return None

    def _entrance(self, request: Request) -> Response | None:
        if self.door is None:
            return None
        token = request.query_params.get("token")
        if token is not None and request.url.path == "/":
            if self.door.closed():
                return refused(429, "There were too many wrong tokens; wait a minute.")
            session = self.door.enter(token)
            if session is None:
                return refused(401, "This token is wrong or has been used; the terminal shows the newest one.")
            # Not a redirect: after a link from elsewhere a browser would not send the strict cookie along with it.
            response = HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0;url=/">')
            response.set_cookie(
                COOKIE, session, httponly=True, samesite="strict", secure=request.url.scheme == "https",
                max_age=30 * 24 * 3600,
            )  # fmt: skip
            return response
        if not self.door.admits(request.cookies.get(COOKIE, "")):
            return refused(401, "Open the address with the token that the server shows on its terminal.")
        return None


def _body_refusal(headers: Headers) -> Response | None:
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return refused(415, "Only JSON is taken here.")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > LARGEST_BODY:
        return refused(413, f"A request may have {LARGEST_BODY // 1024} KiB at most.")
    return None


def refused(status: int, sentence: str) -> JSONResponse:
    """An answer that says why not."""
    return JSONResponse({"error": sentence}, status)


class TooLarge(Exception):
    """A request's body is larger than was said or allowed."""


def _limited(receive: Receive) -> Receive:
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > LARGEST_BODY:
            raise TooLarge
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def _host_name(host: str) -> str:
    """Without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
