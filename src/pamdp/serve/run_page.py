"""`GET /v1/run`: what a run has measured, and its report and reading sheet, to read and never to change.

Owns which files of a run a browser may see: a fixed few, none of them outside of the run. Knows nothing of how they are
made (pamdp.evaluation).
"""

from __future__ import annotations

import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from pamdp.evaluation.records import graded
from pamdp.evaluation.run_reader import FILES, ReportData, load_report
from pamdp.evaluation.success import compare
from pamdp.files import json_line
from pamdp.serve.errors import ApiError
from pamdp.serve.service import Admin

PAGES = {"report.html": "report.html", "sheet.html": "reading/sheet.html"}
"""Name in an address -> file in the run. The key of a sheet, which says who wrote what, is none of them."""
SANDBOX = (
    "sandbox allow-downloads allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; font-src data:"
)
"""Such a page has an origin of its own: nothing in it can ask this server, or any other, for anything."""


def run_folder(source: str) -> Path | None:
    """The run directory that SOURCE names; None where it is a policy alone."""
    folder = Path(source)
    return folder.resolve() if any((folder / name).is_file() for name in FILES) else None


def run_router(run: Path) -> APIRouter:
    """The routes of a RUN. Its pages open by a link that holds a ticket, since links carry no key."""
    router, ticket = APIRouter(), secrets.token_urlsafe(32)

    @router.get("/v1/run")
    def measured(asking: Admin) -> Response:
        """Curves, tables and links."""
        there = {name: f"/run/{ticket}/{name}" for name, path in PAGES.items() if _inside(run, path)}
        found = {"object": "run", "pages": there, **tables(load_report(run))}
        return Response(json_line(found), media_type="application/json")

    @router.get("/run/{given}/{name}", include_in_schema=False)
    def page(given: str, name: str) -> Response:
        file = _inside(run, PAGES[name]) if name in PAGES else None
        if file is None or not secrets.compare_digest(given.encode(), ticket.encode()):
            raise ApiError(404, "there is no such page")
        headers = {
            "Content-Security-Policy": SANDBOX, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
        }  # fmt: skip
        return Response(file.read_bytes(), media_type="text/html; charset=utf-8", headers=headers)

    return router


def tables(data: ReportData) -> dict[str, Any]:
    """What the page of a run shows."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for metric in data.metrics or ():
        for name, value in metric.values.items():
            curves.setdefault(metric.stage, {}).setdefault(name, []).append((metric.step, value))
    rates = [
        {
            "method": row.method, "baseline": row.baseline, "judge": row.judge, "rate": row.rate.value,
            "low": row.rate.low, "high": row.rate.high, "wins": row.wins, "ties": row.ties, "losses": row.losses,
            "users": row.rate.clusters,
        }
        for row in compare(graded(data.judgements or ()))
    ]  # fmt: skip
    return {
        "name": data.name, "config": data.config, "curves": curves, "rates": rates,
        "controls": [asdict(control) for control in data.controls or ()],
    }  # fmt: skip


def _inside(run: Path, path: str) -> Path | None:
    """The file, wherever links lead; None where it is missing or lies outside of the run."""
    file = (run / path).resolve()
    return file if file.is_file() and file.is_relative_to(run) else None
