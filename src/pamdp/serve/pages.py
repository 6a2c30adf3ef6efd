"""The web page of a server: its files, which hold all that they need, and what they may do in a browser.

Owns which files there are, and their Content-Security-Policy. Knows nothing of what a page asks the server for.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from pamdp.serve.errors import ApiError
from pamdp.serve.inspection import router as inspection
from pamdp.serve.profiles import Profiles
from pamdp.serve.run_page import run_folder, run_router
from pamdp.serve.service import This

PAGES = {"/": "index.html", "/run": "run.html"}
TYPES = {
    "html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, and no text that becomes HTML, whatever it holds."""
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}  # fmt: skip
FOLDER = files("pamdp.serve") / "page"
FILES = {file.name: file.read_bytes() for file in FOLDER.iterdir() if file.name.rpartition(".")[2] in TYPES}


def page_router(source: str) -> APIRouter:
    """The page of a server of the run SOURCE, with all that only the page asks for.

    What else it shows, it asks the server's other routes for; it leaves out what there is no route for.
    """
    router, run = APIRouter(), run_folder(source)
    router.include_router(inspection)
    if run is not None:
        router.include_router(run_router(run))

    def page(request: Request) -> Response:
        return _file(PAGES[request.url.path])

    for path in PAGES:
        router.add_api_route(path, page, include_in_schema=False)

    @router.get("/page/{name}", include_in_schema=False)
    def file(name: str) -> Response:
        if name not in FILES:
            raise ApiError(404, "there is no such file")
        return _file(name)

    @router.get("/v1/page")
    def offers(request: Request, this: This) -> JSONResponse:
        """What this server offers to its page; needs no key, and names nobody."""
        paths = _paths(request.app)
        return JSONResponse({
            "keys": not this.keys.open,
            "feedback": "/v1/feedback" in paths,
            "profiles": any(path.startswith("/v1/users/") and path.endswith("/profile") for path in paths),
            "values": any(path.startswith("/v1/users/") and path.endswith("/values") for path in paths),
            "infers": isinstance(this.recorder, Profiles) and this.recorder.profiler is not None,
            "run": run is not None,
        })  # fmt: skip

    return router


def _file(name: str) -> Response:
    return Response(FILES[name], media_type=TYPES[name.rpartition(".")[2]], headers=HEADERS)


def _paths(app: FastAPI) -> frozenset[str]:
    return frozenset(app.openapi()["paths"])
