"""`POST /v1/feedback`: a thumb, which of two replies is better, or what a reply should have said.

Owns the form of a request. Knows nothing of what feedback teaches (export.py, train/feedback.py).
"""

from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Header
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, model_validator

from pamdp.data.fields import MAX_TEXT
from pamdp.errors import DataError
from pamdp.serve.callers import Asker, Who, belongs, namespaced
from pamdp.serve.errors import ApiError
from pamdp.serve.store import Feedback, Store

Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_WAYS = ({"reply", "thumb"}, {"preferred", "over"}, {"reply", "correction"})


def _up_or_down(thumb: int) -> int:
    if thumb not in (1, -1):
        raise ValueError("a thumb is 1 or -1")
    return thumb


class Said(BaseModel):
    """One of {reply, thumb}, {preferred, over} and {reply, correction}; `user` as in the chat, if it had one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reply: Id | None = None
    thumb: Annotated[int, AfterValidator(_up_or_down)] | None = None
    preferred: Id | None = None
    over: Id | None = None
    correction: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)] | None = (
        None
    )
    user: Id | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.model_fields_set - {"user"} not in _WAYS or None in (getattr(self, n) for n in self.model_fields_set):
            raise ValueError("give reply and thumb, or preferred and over, or reply and correction")
        return self

    def feedback(self, user: str) -> Feedback:
        """What is said, by whom."""
        if self.preferred is not None:
            return Feedback("", user, self.preferred, "preferred", over=self.over)
        kind: Literal["thumb", "correction"] = "thumb" if self.thumb is not None else "correction"
        return Feedback("", user, self.reply or "", kind, self.thumb, text=self.correction)


def feedback_router(store: Store, who: Who) -> APIRouter:
    """The route. A key may speak of the replies that its users were given."""
    router = APIRouter(prefix="/v1/feedback")

    @router.post("")
    def say(
        said: Said,
        asker: Annotated[Asker, Depends(who)],
        idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    ) -> dict[str, Any]:
        key, _, everybody = asker
        owner = store.owner(said.preferred or said.reply or "")
        if owner is None or not (everybody or belongs(owner, key)):
            raise ApiError(404, "there is no such reply", "not_found")
        if said.user is not None and owner != namespaced(key, said.user) and not everybody:
            raise DataError("this reply was given to another user")
        made = store.rate(said.feedback(owner), idempotency_key)
        return {
            "object": "feedback",
            **{name: x for name, x in asdict(made).items() if x is not None and name != "text"},
        }

    return router
