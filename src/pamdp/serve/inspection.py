"""`POST /v1/inspect`: the actions that a policy takes along a chat, what it is worth, and other actions' replies.

Owns what may be seen of a policy from outside: actions and values, no hidden state. For admins, or whoever reaches a
server without keys, alone: a chat is read in the engine's thread, and replies wait meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from fastapi import APIRouter
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from pamdp.engines.batch import instructed
from pamdp.engines.job import Numbers
from pamdp.errors import ContextLengthError
from pamdp.models.generate import Sampling
from pamdp.models.prefix import Prefix
from pamdp.serve.aside import write_actions
from pamdp.serve.callers import belongs, namespaced
from pamdp.serve.chains import chats
from pamdp.serve.errors import ApiError
from pamdp.serve.models import Model
from pamdp.serve.profiles import Profiles
from pamdp.serve.protocol import ChatRequest
from pamdp.serve.served import ServedReply
from pamdp.serve.service import Admin, Service, This
from pamdp.types import History

router = APIRouter(prefix="/v1/inspect")
MOST = 40
"""Stored conversations whose actions are offered."""


class OtherActions(ChatRequest):
    """A chat, and the actions under which its last message is answered: of stored conversations by number, or named."""

    actions: Annotated[list[Annotated[int, Field(ge=0)] | Literal["mean", "zero"]], Field(min_length=1, max_length=4)]


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message: E[a|h], its place among the chat's actions, and V(h), None without a critic."""

    mean: tuple[float, ...]
    at: tuple[float, float]
    v_h: float | None


@router.post("")
async def inspect(asked: ChatRequest, this: This, asking: Admin) -> dict[str, object]:
    """The mean action and V(h) at every user message of a chat."""
    model, history = _model(this, asked), asked.history()
    turns, shares = await asyncio.wrap_future(this.engine.call(lambda: turns_of(this, model, history)))
    others = await asyncio.to_thread(_others, this, asking.name, model, history)
    return {
        "object": "inspection", "model": model.name, "version": model.version,
        "turns": [{"mean": turn.mean, "at": turn.at, "v_h": turn.v_h} for turn in turns], "shares": shares,
        "others": [{"index": i, "user": o.user, "turns": _turns(o.history)} for i, o in enumerate(others)],
    }  # fmt: skip


@router.post("/replies")
async def replies(asked: OtherActions, this: This, asking: Admin) -> dict[str, object]:
    """What the model would have said under other actions, greedily."""
    model, history = _model(this, asked), asked.history()
    others = await asyncio.to_thread(_others, this, asking.name, model, history)
    most = asked.max_completion_tokens or asked.max_tokens or model.policy.config.rl.max_reply
    sampling = Sampling(min(most, this.config.max_tokens))
    if unknown := [action for action in asked.actions if isinstance(action, int) and action >= len(others)]:
        raise ApiError(400, f"there is no conversation {unknown[0]}; {len(others)} are stored", param="actions")
    space = namespaced(asking.name, asked.user), model.name, model.version
    actions = tuple(_action(action, model, others) for action in asked.actions)
    texts = await asyncio.wrap_future(write_actions(this.engine, model.policy, history, sampling, space, actions))
    data = [{"action": action, "text": text} for action, text in zip(asked.actions, texts, strict=True)]
    return {"object": "replies", "model": model.name, "version": model.version, "data": data}


def principal(actions: Float[Tensor, "turns d_a"]) -> tuple[Float[Tensor, "turns 2"], list[float]]:
    """Actions on the first two principal directions of themselves, and the shares of variance that these hold.

    A direction points to where its largest component is above 0, so the same actions always give the same picture.
    """
    centred = actions.double() - actions.double().mean(0)
    _, scale, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    places = centred @ (directions * torch.where(largest < 0, -1.0, 1.0)).T
    shares = (scale**2 / (scale**2).sum().clamp_min(1e-12)).tolist()
    missing = 2 - len(directions)
    return torch.nn.functional.pad(places, (0, missing)), [*shares[:2], *[0.0] * missing]


def turns_of(this: Service, model: Model, history: History) -> tuple[list[Turn], list[float]]:
    """The turns of a chat, and `principal`'s shares; in the engine's thread."""
    policy, prefix = model.policy, _read(this, model, history)
    features = [policy.features(prefix, t) for t in range(len(prefix.encoded.heads))]
    means = torch.stack([policy.trained_planner.actor(h) for h in features])
    places, shares = principal(means)
    values = [None if model.critics is None else float(model.critics.v_h(h)) for h in features]
    return [
        Turn(tuple(mean.tolist()), (float(at[0]), float(at[1])), v)
        for mean, at, v in zip(means, places, values, strict=True)
    ], shares


def _model(this: Service, asked: ChatRequest) -> Model:
    model = this.model(asked.model)
    _ = model.policy.trained_planner  # the plain model takes no action: a ModelError
    return model


def _read(this: Service, model: Model, history: History) -> Prefix:
    policy, spoken = instructed(model.policy, history)
    tokens = len(policy.encode(spoken).ids)
    if tokens > this.config.context:
        raise ContextLengthError(f"this chat has {tokens} tokens, and at most {this.config.context} are read")
    return policy.prefix(spoken)


def _action(action: int | Literal["mean", "zero"], model: Model, others: Sequence[ServedReply]) -> Numbers | None:
    if isinstance(action, int):
        return others[action].mean
    return None if action == "mean" else (0.0,) * model.policy.config.model.d_a


def _others(this: Service, key: str, model: Model, history: History) -> list[ServedReply]:
    """The last replies of conversations of the key's users that the same version gave, but of the chat at hand."""
    if not isinstance(this.recorder, Profiles):
        return []
    store, found = this.recorder.store, list[ServedReply]()
    for user in store.users():
        if belongs(user, key):
            found += [
                reply for reply in _last(store.replies(user), model) if reply.history != history[: len(reply.history)]
            ]
        if len(found) >= MOST:
            break
    return found[:MOST]


def _last(replies: Sequence[ServedReply], model: Model) -> Iterator[ServedReply]:
    by_history = {reply.spoken: reply for reply in replies}
    for history in chats(replies):
        reply = by_history[history]
        if reply.mean is not None and (reply.model, reply.version) == (model.name, model.version):
            yield reply


def _turns(history: History) -> int:
    return sum(message.role == "user" for message in history)
