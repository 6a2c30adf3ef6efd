"""`POST /v1/chat/completions`: replies, whole or as they are written.

Owns one request from its admission to its last byte. Knows nothing of how replies are written (pamdp.engines).
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse

from pamdp.engines.job import Ended, Event, Failed, Job, Piece, Started
from pamdp.models.generate import Sampling
from pamdp.serve import protocol
from pamdp.serve.callers import namespaced
from pamdp.serve.errors import ApiError, body, of_pamdp
from pamdp.serve.keys import Caller
from pamdp.serve.models import Model
from pamdp.serve.protocol import ChatRequest
from pamdp.serve.served import ServedReply
from pamdp.serve.service import Asking, Service, This

T = TypeVar("T")
router = APIRouter()
LEAST = 0.001
"""A `top_p` or temperature that is smaller lets one token remain, and would only overflow."""
GONE = 499
"""Status of a request whose client did not wait for the answer; nobody sees it but the log."""


@router.post("/v1/chat/completions", response_model=None)
async def complete(asked: ChatRequest, request: Request, this: This, asking: Asking) -> Response:
    """Replies to a chat."""
    exchange = Exchange(this, asking, asked)
    events = exchange.events()
    if not asked.stream:
        answer = await _unless_gone(request, exchange.whole(events))
        return Response(status_code=GONE) if answer is None else JSONResponse(answer)
    # What is refused has a status of its own, so the stream begins when the history has been read.
    started = await _unless_gone(request, exchange.started(events))
    if started is None:
        return Response(status_code=GONE)
    return EventSourceResponse(exchange.stream(started, events), sep="\n", send_timeout=this.config.timeout)


async def _unless_gone(request: Request, work: Coroutine[object, object, T]) -> T | None:
    """The result of WORK, which ends when the client goes away: None then."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return await tasks[0] if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and what is said to it; an ApiError at once where it cannot be understood."""

    this: Service
    asking: Caller
    asked: ChatRequest
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(16)}")
    asked_at: float = field(default_factory=time.monotonic)
    created: float = field(default_factory=time.time)
    model: Model = field(init=False)
    job: Job = field(init=False)
    queue: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        asked, config = self.asked, self.this.config
        asked.require_understood()
        self.model = self.this.model(asked.model)
        if (asked.n or 1) > config.n:
            raise ApiError(400, f"n is at most {config.n} here", param="n")
        policy, loop = self.model.policy, asyncio.get_running_loop()
        most = asked.max_completion_tokens or asked.max_tokens or policy.config.rl.max_reply
        usual = Sampling()
        sampling = Sampling(
            min(most, config.max_tokens),
            usual.temperature if asked.temperature is None else asked.temperature * (asked.temperature >= LEAST),
            usual.top_p if asked.top_p is None else max(LEAST, asked.top_p),
            trim=not asked.stream,
        )
        user = namespaced(self.asking.name, asked.user)

        def emit(event: Event) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(self.queue.put_nowait, event)

        self.job = Job(
            policy, asked.history(), sampling,
            (user, self.model.name, self.model.version), emit, asked.n or 1,
            secrets.randbits(63) if asked.seed is None else asked.seed % 2**63, asked.stops, bool(asked.stream),
            config.explore,
        )  # fmt: skip

    @property
    def head(self) -> Mapping[str, object]:
        """What all parts of the answer begin with."""
        return {
            "id": self.id, "created": int(self.created), "model": self.model.name,
            "system_fingerprint": self.model.version[:16],
        }  # fmt: skip

    async def events(self) -> AsyncGenerator[Event]:
        """What the engine tells, until all replies are over; an ApiError where they cannot be had."""
        this = self.this
        with this.admitted(self.asking):
            this.waiting += 1
            read = False
            this.engine.submit(self.job)
            try:
                left = self.job.n
                while left:
                    event = await self._next()
                    if not read:
                        this.waiting, read = this.waiting - 1, True
                    if isinstance(event, Failed):
                        status, code = of_pamdp(event.error)
                        raise ApiError(status, str(event.error), code, retry=5 if status == 503 else None)
                    if isinstance(event, Ended):
                        left -= 1
                        await asyncio.to_thread(this.record, self._served(event))
                    yield event
                this.metrics.whole.labels(self.model.name).observe(time.monotonic() - self.asked_at)
            finally:
                this.waiting -= not read
                this.engine.cancel(self.job)

    async def _next(self) -> Event:
        left = self.asked_at + self.this.config.timeout - time.monotonic()
        try:
            return await asyncio.wait_for(self.queue.get(), max(0.0, left))
        except TimeoutError as error:
            raise ApiError(504, "the reply took too long; ask for a shorter one, or later", "timeout") from error

    async def started(self, events: AsyncGenerator[Event]) -> Started:
        """The first event of all."""
        first = await anext(events)
        assert isinstance(first, Started)
        return first

    async def whole(self, events: AsyncGenerator[Event]) -> Mapping[str, object]:
        """The answer in one piece."""
        prompt, ended = Started(0, 0, 0.0), dict[int, Ended]()
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Started):
                    prompt = event
                elif isinstance(event, Ended):
                    ended[event.index] = event
        choices = [protocol.choice(i, ended[i].text, ended[i].reason) for i in sorted(ended)]
        counts = self._count(prompt, sum(reply.tokens for reply in ended.values()))
        return protocol.completion(self.head, choices, counts)

    async def stream(self, prompt: Started, events: AsyncGenerator[Event]) -> AsyncIterator[Mapping[str, str]]:
        """The answer in pieces, as server-sent events."""
        told = self.asked.stream_options is not None and bool(self.asked.stream_options.include_usage)
        more = {"usage": None} if told else {}
        written, first = 0, True

        def said(piece: Mapping[str, object]) -> Mapping[str, str]:
            return {"data": json.dumps({**piece, **more})}

        async with aclosing(events):
            for index in range(self.job.n):
                yield said(protocol.chunk(self.head, index, {"role": "assistant", "content": ""}))
            try:
                async for event in events:
                    if not isinstance(event, Piece | Ended):
                        continue
                    if text := event.text if isinstance(event, Piece) else event.rest:
                        if first:
                            self.this.metrics.first.labels(self.model.name).observe(time.monotonic() - self.asked_at)
                        first = False
                        yield said(protocol.chunk(self.head, event.index, {"content": text}))
                    if isinstance(event, Ended):
                        written += event.tokens
                        yield said(protocol.chunk(self.head, event.index, {}, event.reason))
            except ApiError as error:
                yield {"data": json.dumps(body(error.status_code, str(error.detail), error.code))}
                return
            counts = self._count(prompt, written)
            if told:
                last = {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": counts}
                yield {"data": json.dumps(last)}
            yield {"data": "[DONE]"}

    def _count(self, prompt: Started, written: int) -> Mapping[str, object]:
        tokens = self.this.metrics.tokens
        tokens.labels(self.model.name, "prompt").inc(prompt.prompt_tokens)
        tokens.labels(self.model.name, "cached").inc(prompt.cached_tokens)
        tokens.labels(self.model.name, "completion").inc(written)
        return protocol.usage(prompt.prompt_tokens, written, prompt.cached_tokens)

    def _served(self, reply: Ended) -> ServedReply:
        name = self.id if reply.index == 0 else f"{self.id}-{reply.index}"
        return ServedReply(
            name, self.job.space[0], self.model.name, self.model.version, self.job.history, reply.text, reply.action,
            reply.mean, reply.sigma, self.created,
        )  # fmt: skip
