"""What a server tells of itself, and how another policy takes a policy's place.

Knows nothing of replies.
"""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from pamdp.serve.aside import among
from pamdp.serve.models import TRAINED, Model, load_models, reusing
from pamdp.serve.service import Admin, Asking, This, log

router = APIRouter()


@router.get("/healthz")
async def health(this: This) -> JSONResponse:
    """Whether requests are answered, and how many replies could not be written down; needs no key."""
    ready = not this.stopping and this.engine.alive
    status = "ready" if ready else "stopping" if this.stopping else "failed"
    told = {"ready": ready, "status": status, "unrecorded": this.unrecorded}
    return JSONResponse(told, 200 if ready else 503)


@router.get("/v1/models")
async def models(this: This, asking: Asking) -> dict[str, object]:
    """The models that can be asked."""
    return {"object": "list", "data": [_row(model) for model in this.models.values()]}


@router.get("/v1/models/{name}")
async def model(name: str, this: This, asking: Asking) -> dict[str, object]:
    """One of them."""
    return _row(this.model(name))


def _row(model: Model) -> dict[str, object]:
    return {
        "id": model.name, "object": "model", "created": model.created, "owned_by": "pamdp", "version": model.version,
    }  # fmt: skip


@router.get("/metrics")
async def metrics(this: This, asking: Admin) -> Response:
    """Counters, for Prometheus."""
    return Response(generate_latest(this.metrics.registry), media_type=CONTENT_TYPE_LATEST)


class Reload(BaseModel):
    """Another policy to serve: a run or a policy's folder on the server; FORCE skips the check."""

    path: str
    force: bool = False


@router.post("/v1/admin/reload")
async def reload(asked: Reload, this: This, asking: Admin) -> JSONResponse:
    """Load a policy and serve it from now on; replies under way end under the old one."""
    call = this.engine.call
    async with this.reloading:
        load = partial(load_models, asked.path, reusing(this.models, this.load), this.config.model)
        found, said = await asyncio.wrap_future(call(load)), None
        if this.check is not None and not asked.force:
            old, new = this.models[TRAINED].policy, found[TRAINED].policy
            report = await asyncio.to_thread(this.check, old, new, among(this.engine, max(1, this.config.places // 4)))
            said = report.document
            if not report.ok:
                return JSONResponse({"reloaded": False, "report": said}, 409)
        await asyncio.wrap_future(call(partial(this.loaded, found)))
        this.models = found
    versions = {name: model.version for name, model in found.items()}
    log.info("serving %s from now on, by order of key %s", versions[TRAINED][:16], asking.name)
    return JSONResponse({"reloaded": True, "versions": versions, "report": said})
