"""Jobs of policies that can be in the same forward pass: read, written and ended together.

Owns what becomes of a job from its history to its last reply. Knows nothing of threads and of other batches.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal

from torch import Tensor

from pamdp.engines.job import Ended, Failed, Job, Numbers, Piece, Started
from pamdp.engines.prefix_cache import PrefixCache
from pamdp.engines.speech import Speech
from pamdp.errors import ContextLengthError, EndpointError, PamdpError
from pamdp.models.backbone import Backbone
from pamdp.models.chat import Encoded
from pamdp.models.generate import Entry, Writing, places_for
from pamdp.models.place import on_host
from pamdp.models.policy import Policy, Request
from pamdp.models.prefill import prefill, together
from pamdp.models.prefix import Prefix
from pamdp.seeds import seed_of
from pamdp.types import History

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a batch may hold; see `Engine`."""

    places: int
    context: int
    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class _Reply:
    job: Job
    index: int
    max_tokens: int
    action: Numbers | None
    mean: Numbers | None
    sigma: float
    speech: Speech


@dataclass(slots=True)
class Batch:
    """Jobs of policies that share backbone and adapter."""

    limits: Limits
    cache: PrefixCache
    backbone: Backbone
    adapter: str | None
    layer: int
    queue: deque[tuple[Job, float]] = field(default_factory=deque)
    reading: list[Job] = field(default_factory=list)
    waiting: deque[Entry] = field(default_factory=deque)
    replies: dict[int, _Reply] = field(default_factory=dict)
    writing: Writing | None = None
    keys: count[int] = field(default_factory=count)

    @property
    def busy(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.queue or self.replies)

    def turn(self) -> None:
        """Read some histories, if replies to them can begin, and write a token of every reply."""
        self.activate(self.adapter)
        self._read()
        if self.writing is None or not self.replies:
            return
        for key, ids in self.writing.step(self.waiting):
            self._end(self.replies.pop(key), ids)
        for key, ids in self.writing.so_far():
            reply = self.replies[key]
            if not (reply.job.stream or reply.job.stop):
                continue
            new = reply.speech.more(self.backbone.chat.decode(ids))
            if reply.speech.stopped:
                self.writing.drop(key)
                self._end(self.replies.pop(key), ids, new)
            elif new and reply.job.stream:
                reply.job.emit(Piece(reply.index, new))

    def activate(self, adapter: str | None) -> None:
        """Use ADAPTER from now on; unlike `Backbone.adapter`, which switches back, once for all turns in a row."""
        if self.backbone.active != adapter:
            self.backbone.switch(adapter)

    def rest(self) -> None:
        """Nothing is left to write: take the adapter out of use, which could not be taken off, and leave the places."""
        self.activate(None)
        if self.writing is not None:
            self.writing.keep()

    def cancel(self, job: Job) -> None:
        """Forget a job."""
        self.queue = deque(entry for entry in self.queue if entry[0] is not job)
        gone = {key for key, reply in self.replies.items() if reply.job is job}
        self.waiting = deque(entry for entry in self.waiting if entry.key not in gone)
        for key in gone:
            del self.replies[key]
            if self.writing is not None:
                self.writing.drop(key)

    def fail(self, error: PamdpError) -> None:
        """Give up all jobs."""
        every = *(job for job, _ in self.queue), *self.reading, *(reply.job for reply in self.replies.values())
        jobs = {id(job): job for job in every}
        self.queue.clear()
        self.replies.clear()
        for job in jobs.values():
            job.emit(Failed(error))

    def _read(self) -> None:
        """Prefixes of jobs for which places are free, a few tokens at a time: replies under way wait meanwhile."""
        free, new = self.limits.places - len(self.replies), 0
        chosen: list[tuple[Job, float, Encoded, Prefix | None]] = []
        while self.queue and free > 0 and new < together(self.backbone):
            job, asked = self.queue.popleft()
            try:
                encoded = self._encode(job)
            except PamdpError as error:
                job.emit(Failed(error))
                continue
            except Exception as error:
                job.emit(Failed(unexpected(error)))
                continue
            before = self.cache.find(job.space, encoded)
            chosen.append((job, asked, encoded, before))
            self.reading.append(job)
            free -= job.n
            new += len(encoded.ids) - _length(before)
        fresh = [(encoded, before) for _, _, encoded, before in chosen if _length(before) < len(encoded.ids)]
        read = iter(prefill(self.backbone, [e for e, _ in fresh], self.layer, [b for _, b in fresh]))
        for job, asked, encoded, before in chosen:
            whole = before is not None and _length(before) == len(encoded.ids)
            prefix = replace(before, encoded=encoded) if whole and before is not None else next(read)
            self.cache.keep(job.space, prefix, before)
            job.emit(Started(len(encoded.ids), _length(before), time.monotonic() - asked))
            try:
                self._begin(job, prefix)
            except Exception as error:  # others go on
                self.cancel(job)
                job.emit(Failed(unexpected(error)))
        self.reading.clear()

    def _encode(self, job: Job) -> Encoded:
        policy, history = instructed(job.policy, job.history)
        encoded = self.backbone.chat.history(history, policy.system)
        if self._room(job.policy, encoded) < 1:
            raise ContextLengthError(
                f"this chat has {len(encoded.ids)} tokens, which leaves no room for a reply in the "
                f"{self._context()} tokens that a chat and its reply may have; leave out what was said first"
            )
        return encoded

    def _context(self) -> int:
        return min(self.limits.context, self.backbone.positions or self.limits.context)

    def _room(self, policy: Policy, encoded: Encoded) -> int:
        return self._context() - len(encoded.ids) - policy.config.model.n_embeddings

    def _begin(self, job: Job, prefix: Prefix) -> None:
        if self.writing is None:
            tokens = min(self.limits.tokens, self._context())
            self.writing = places_for(
                self.backbone, prefix, self.limits.places, self._context() - tokens, tokens, self.layer
            )
        policy, room = job.policy, self._room(job.policy, prefix.encoded)
        sampling = replace(job.sampling, max_tokens=min(job.sampling.max_tokens, room, self.limits.tokens))
        seed = seed_of(job.seed, "action") if job.explore else None
        mean, drawn = policy.act(policy.features(prefix), job.n, seed)
        actions = [a if a is None or mean is None or seed is None else mean + job.explore * (a - mean) for a in drawn]
        given = job.actions or (None,) * job.n
        if mean is not None:
            both = zip(actions, given, strict=True)
            actions = [a if numbers is None else mean.new_tensor(numbers) for a, numbers in both]
        centre, *told = _numbers([mean, *actions])
        sigma = job.explore * float(policy.planner.actor.sigma) if job.explore and policy.planner is not None else 0.0
        for index, action in enumerate(actions):
            request = Request(0, -1, action, seed_of(job.seed, index) if index else job.seed)
            key = next(self.keys)
            drawn_by = sigma if given[index] is None else 0.0
            reply = _Reply(job, index, sampling.max_tokens, told[index], centre, drawn_by, Speech(job.stop))
            self.replies[key] = reply
            self.waiting.append(Entry(key, prefix, policy.row(prefix, request), sampling))

    def _end(self, reply: _Reply, ids: list[int], said: str = "") -> None:
        job, speech = reply.job, reply.speech
        sampling = replace(job.sampling, max_tokens=reply.max_tokens)
        # Where a stop text ends a reply it is not the budget that broke it off.
        raw = self.backbone.chat.decode(ids)
        rest = said + speech.rest(raw)
        text = speech.said
        if not speech.stopped and not job.stream:
            text = rest = job.policy.text(ids, sampling)
        broken = len(ids) >= reply.max_tokens and not speech.stopped
        reason: Literal["stop", "length"] = "length" if broken else "stop"
        job.emit(Ended(reply.index, text, rest, reason, len(ids), reply.action, reply.mean, reply.sigma))


def instructed(policy: Policy, history: History) -> tuple[Policy, History]:
    """POLICY under what a system message at the beginning of HISTORY adds to its own instruction; the rest of it."""
    if not history or history[0].role != "system":
        return policy, history
    return replace(policy, system=f"{policy.system}\n\n{history[0].content}"), history[1:]


def unexpected(error: Exception) -> EndpointError:
    """What is told of an error in the code, which the log has whole."""
    log.error("a reply failed", exc_info=error)
    return EndpointError(f"the reply could not be written ({type(error).__name__})")


def _length(prefix: Prefix | None) -> int:
    return 0 if prefix is None else len(prefix.encoded.ids)


def _numbers(actions: Sequence[Tensor | None]) -> list[Numbers | None]:
    """Actions as plain numbers, by one copy from their device for all; None where there is none."""
    known = iter(on_host([action for action in actions if action is not None]))
    return [None if action is None else tuple(next(known).tolist()) for action in actions]
