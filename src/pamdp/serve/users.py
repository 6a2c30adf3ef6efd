"""`/v1/users`: what is remembered of a user, for that user: to see, to correct, to take along, to erase.

Owns paths, and whose users a key may ask for. Knows nothing of tables, nor of how a caller is told from another.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from pamdp.files import json_line
from pamdp.serve import profiles as memory
from pamdp.serve.callers import Asker, Who, belongs, namespaced
from pamdp.serve.erasing import erase, everything
from pamdp.serve.errors import ApiError
from pamdp.serve.profiles import NOTES, Change, Profile, Profiles
from pamdp.serve.value import Value
from pamdp.types import History, Persona

Values = Callable[[History, Persona], Value | None]
"""From a history and a profile to what the former is worth; None where the policy that replies has no critics."""
NOT_INFERRED = "this server infers no profiles; it holds what was written into it"
USED_FOR = (
    "V(h, w), what a reply is expected to be worth to this user, and judging; no reply is written from it: the policy "
    "never reads it, so editing it changes no reply by itself"
)


Flag = Annotated[bool, BeforeValidator(lambda value: True if value == "" else value)]
"""An option of a query that may stand alone: `?refresh`."""


class Statement(BaseModel):
    """A statement to add (no `id`), to change, or to take out (`text` null)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: int | None = None
    field: memory.Field = "profile"
    text: Annotated[str, StringConstraints(max_length=2000)] | None


class Edit(BaseModel):
    """Changes to a profile, all or none."""

    model_config = ConfigDict(extra="forbid")

    statements: Annotated[list[Statement], Field(min_length=1, max_length=100)]


def users_router(
    profiles: Profiles, who: Who, values: Values = lambda *_: None, erased: Callable[[str], None] = lambda _: None
) -> APIRouter:
    """The routes under /v1/users.

    A client names a user as it does in a chat, or by the whole id, as a key does that may ask for everybody.

    Args:
      profiles: of the store's users.
      who: gives the asker of a request.
      values: of the policy that replies.
      erased: is told whom to forget beside the store.
    """
    router, store = APIRouter(prefix="/v1/users"), profiles.store

    def own(user: str, asker: Annotated[Asker, Depends(who)]) -> str:
        """The id of the user that a path names, if it is the caller's; one answer for all that are not."""
        key, _, everybody = asker
        whole = [user] if everybody or belongs(user, key) else []
        for id in [*whole, namespaced(key, user)]:
            if store.knows(id):
                return id
        raise ApiError(404, "there is no such user", "not_found")

    Own = Annotated[str, Depends(own)]

    @router.get("/{user:path}/profile")
    def see(id: Own, refresh: Flag = False) -> dict[str, Any]:
        return shown(profiles, profiles.infer(id) if refresh else profiles.read(id))

    @router.patch("/{user:path}/profile")
    def edit(id: Own, edit: Edit, asker: Annotated[Asker, Depends(who)]) -> dict[str, Any]:
        return shown(profiles, profiles.edit(id, [Change(s.text, s.id, s.field) for s in edit.statements], asker[0]))

    @router.delete("/{user:path}/profile")
    def forget(id: Own) -> dict[str, Any]:
        profiles.forget(id)
        return shown(profiles, profiles.read(id))

    @router.get("/{user:path}/values")
    def worth(id: Own) -> dict[str, Any]:
        replies = store.replies(id)
        value = values(replies[-1].history, profiles.read(id).persona) if replies else None
        if value is None:
            raise ApiError(404, "nobody can say what this is worth: no conversation, or no critics", "not_found")
        return {"object": "user.values", "user": id, "reply": replies[-1].id, **asdict(value)}

    @router.get("/{user:path}/export")
    def export(id: Own) -> StreamingResponse:
        # Read whole before the answer begins: a store that fails later could not be told any more.
        records = [*everything(store, profiles, id)]
        return StreamingResponse(map(json_line, records), media_type="application/jsonl")

    @router.delete("/{user:path}")
    def forget_all(id: Own) -> dict[str, Any]:
        learned = erase(store, id)
        erased(id)
        again = [{"version": v.id, "run": v.run, "train_again": v.again(store.place)} for v in learned]
        return {"id": id, "object": "user.deleted", "deleted": True, "learned_from_them": again}

    return router


def shown(profiles: Profiles, profile: Profile) -> dict[str, Any]:
    """A profile as its user sees it: what, how sure, from which messages, and what it is used for."""
    note = NOTES[profile.state] if profiles.profiler or profile.state != "none" else NOT_INFERRED
    return {
        "object": "user.profile", "user": profile.user, "state": profile.state, "note": note,
        "inferred_from": profile.inferred_from, "inferred_at": profile.inferred_at or None,
        "statements": [asdict(entry) for entry in profile.entries], "used_for": USED_FOR,
    }  # fmt: skip
