"""The page's server: files, JSON, and a stream of how it stands."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from envs.errors import RllabError
from preference.labelling.events import Bulletins
from preference.labelling.lookup import NotThere
from preference.labelling.media import Videos
from preference.labelling.office import Given, Office
from preference.labelling.requests import Malformed, choice, identifier, name, number, numbers, objects, seconds
from preference.labelling.security import Door, Guard, TooLarge, refused
from preference.store import StoreUnavailable

PAGE = Path(__file__).parent / "page"
PAGES = {"/": "label.html", "/stats": "stats.html", "/history": "history.html"}
FILES = {path.name: path for path in sorted(PAGE.iterdir()) if path.suffix in (".js", ".css", ".svg")}
VERSION = hashlib.sha256(b"".join(path.read_bytes() for path in FILES.values())).hexdigest()[:16]
"""Of the files: part of their addresses, so that a browser asks for each but once until one of them has changed."""
MOST_ANSWERS, MOST_HISTORY = 100, 100
FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}
NEVER = {"cache-control": "no-store"}


class OtherStore(Exception):
    """A page speaks of another store than the one that is served."""


Handler = Callable[[dict[str, Any]], Any]


def create_app(office: Office, hosts: Callable[[str], bool], door: Door | None = None) -> Starlette:
    """The application.

    Args:
        office: what it serves.
        hosts: whether a host name is the server's own.
        door: by which people come in; None lets everybody in.
    """
    videos, bulletins = Videos(office.lookup), Bulletins(office)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            videos.close()

    async def page(request: Request) -> Response:
        html = (PAGE / PAGES[request.url.path]).read_text(encoding="utf-8")
        return HTMLResponse(html.replace('"/page/', f'"/page/{VERSION}/'), headers={"cache-control": "no-cache"})

    async def file(request: Request) -> Response:
        path = FILES.get(request.path_params["name"])
        if path is None:
            return refused(404, "There is no such file.")
        return FileResponse(path, headers=FOR_EVER if request.path_params["version"] == VERSION else NEVER)

    async def sheet(request: Request) -> Response:
        data, _ = await run_in_threadpool(office.lookup.sheet, number(request.path_params, "number"))
        return Response(data, media_type="image/webp", headers=FOR_EVER)

    async def video(request: Request) -> Response:
        path = await run_in_threadpool(videos.path, number(request.path_params, "number"))
        return FileResponse(path, media_type="video/mp4", headers=FOR_EVER)

    async def events(request: Request) -> Response:
        annotator = name(dict(request.query_params))
        stream = bulletins.stream(annotator)
        return StreamingResponse(stream, media_type="text/event-stream", headers=NEVER)

    def reading(handler: Handler) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            query = dict(request.query_params) | request.path_params
            return JSONResponse(await run_in_threadpool(handler, query), headers=NEVER)

        return answer

    def writing(handler: Handler) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            body = await request.body()
            try:
                document = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise Malformed("The request is not JSON.") from error
            if not isinstance(document, dict):
                raise Malformed("The request is not a JSON object.")
            if document.get("store", office.store.id) != office.store.id:
                raise OtherStore
            result = await run_in_threadpool(handler, document)
            bulletins.hurry()
            return JSONResponse(result, headers=NEVER)

        return answer

    task = _task(office)
    get, post = _readers(office), _writers(office)
    routes = [
        *(Route(path, page) for path in PAGES),
        Route("/page/{version}/{name}", file),
        Route("/api/task", reading(lambda query: task)),
        *(Route(path, reading(handler)) for path, handler in get.items()),
        *(Route(path, writing(handler), methods=["POST"]) for path, handler in post.items()),
        Route("/api/clips/{number}/sheet", sheet),
        Route("/api/clips/{number}/video", video),
        Route("/api/events", events),
    ]

    async def failed(request: Request, error: Exception) -> Response:
        status, sentence = _explained(error)
        return refused(status, sentence)

    kinds = (Malformed, OtherStore, NotThere, TooLarge, StoreUnavailable, RllabError)
    app = Starlette(
        routes=routes, exception_handlers=dict.fromkeys(kinds, failed) | {404: _unknown, 405: _unknown},
        middleware=[Middleware(Guard, hosts=hosts, door=door)], lifespan=lifespan,
    )  # fmt: skip
    app.state.bulletins = bulletins
    return app


def _task(office: Office) -> dict[str, Any]:
    task = office.store.task
    # Without raw HTML: what the question says is text and formatting.
    question = MarkdownIt("commonmark", {"html": False}).disable("image").render(task.question)
    return {
        "kind": task.kind, "question_html": question, "environment": task.environment, "goal": office.config.goal,
        "store": office.store.id,
        "version": version("rllab"),
    }  # fmt: skip


def _readers(office: Office) -> dict[str, Handler]:
    """What is asked for, by path."""

    def history(query: dict[str, Any]) -> dict[str, Any]:
        before = number(query, "before") if "before" in query else None
        count = min(MOST_HISTORY, number(query, "count") if "count" in query else 30)
        return office.history(name(query), before, max(1, count))

    return {
        "/api/pairs/{number}": lambda query: office.pair(number(query, "number"), name(query)),
        "/api/history": history,
        "/api/stats": lambda query: office.statistics(),
    }


def _writers(office: Office) -> dict[str, Handler]:
    """What is told, by path."""

    def following(document: dict[str, Any]) -> dict[str, Any]:
        return office.next(name(document), number(document, "want"), numbers(document, "have"))

    def answers(document: dict[str, Any]) -> dict[str, Any]:
        annotator, given = name(document), objects(document, "answers", MOST_ANSWERS)
        # All are looked at before the first is kept.
        parsed = [
            Given(
                identifier(each, "id"), number(each, "pair"), choice(each), seconds(each),
                identifier(each, "supersedes") if each.get("supersedes") is not None else None,
            )
            for each in given
        ]  # fmt: skip
        results = []
        for each in parsed:
            status, reason = office.answer(annotator, each)
            results.append({"id": str(each.id), "status": status} | ({} if reason is None else {"error": reason}))
        return {"results": results}

    def missing(document: dict[str, Any]) -> dict[str, Any]:
        office.missing(name(document), number(document, "pair"), number(document, "clip"))
        return {}

    return {
        "/api/next": following,
        "/api/answers": answers,
        "/api/undo": lambda document: office.undo(name(document), identifier(document, "id")),
        "/api/release": lambda document: {"released": office.release(name(document), numbers(document, "pairs"))},
        "/api/missing": missing,
    }


def _explained(error: Exception) -> tuple[int, str]:
    if isinstance(error, TooLarge):
        return 413, "This request is too large."
    if isinstance(error, OtherStore):
        return 409, "This page is of another store than the one that is served now; load it again."
    if isinstance(error, NotThere):
        return 404, str(error)
    if isinstance(error, StoreUnavailable):
        return 503, str(error)
    return 400, str(error)


async def _unknown(request: Request, error: Exception) -> Response:
    status: int = getattr(error, "status_code", 404)
    return refused(status, "There is nothing at this address." if status == 404 else "This method is not used here.")
