"""The operator's web page: three files that read the routes below `/admin`. It needs no other host and no build step.

The files themselves tell nothing of the pool, so they are for anybody who reaches the port; what they show needs the
token, unless the browser is on the scheduler's own machine (`access`).
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, RedirectResponse

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parent / "page"
#: Scripts and styles from here only, and nothing that a stranger's text could load or send.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@router.get("/")
async def root() -> RedirectResponse:
    """Redirect to the page."""
    return RedirectResponse("/page/")


@router.get("/page/")
async def index() -> FileResponse:
    """The page's HTML."""
    return FileResponse(_FOLDER / "index.html", headers=_HEADERS)


@router.get("/page/page.css")
async def style() -> FileResponse:
    """The page's style sheet."""
    return FileResponse(_FOLDER / "page.css", headers=_HEADERS)


@router.get("/page/page.js")
async def script() -> FileResponse:
    """The page's script."""
    return FileResponse(_FOLDER / "page.js", headers=_HEADERS)
