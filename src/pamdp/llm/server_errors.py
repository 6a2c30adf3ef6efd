"""What a server means by an error: its own words, which parameter it refuses, and whether it passes.

Owns the reading of errors as common servers word them, and that no key is shown. Knows nothing of requests (openai.py)
and retries (limits.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PASSING = (408, 409, 429)
"""Status codes below 500 that pass by themselves."""
INPUT = (400, 413, 422)
"""Status codes of a request that the server read, and did not take."""
LONGEST = 300
"""Characters of a server's words that are shown."""
READ = 4000
"""Characters of them that are looked through for keys."""

_UNKNOWN = re.compile(r"support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|deprecated|extra", re.I)
_UNWANTED = re.compile(rf"{_UNKNOWN.pattern}|invalid|must|has to|should|cannot|can't|only", re.I)
_TOO_LONG = re.compile(
    r"context.?(length|window|size)|too (large|long|many)|reduce the length|valid range of max_"
    r"|max_\w*tokens.{0,60}(at most|less than|greater than|exceed|maximum)"
    r"|(prompt|input|request).{0,40}(exceed|longer)",
    re.I | re.S,
)
_NO_QUOTA = re.compile(r"insufficient_quota|billing_\w+")
_QUOTA = re.compile(r"quota|billing|credit|insufficient (balance|funds)", re.I)
_PASSES = re.compile(r"retry|try again|rate.?limit|per (second|minute|hour|day)", re.I)
_KEY = re.compile(
    r"\b(?:sk|pk|rk|hf|gsk|xai|nvapi)[-_][\w*.-]+"  # as known hosts begin them
    r"|\bAIza[\w*-]+|\beyJ[\w.*-]+|(?<=Bearer )\S+"
    r"|[\w.-]*\*{2,}[\w.*-]*"  # half struck out by the server
    r"|\b(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{32,}\b"
)


@dataclass(frozen=True, slots=True)
class ServerError:
    """A server's error: the status that it came with, its body (parsed where it is JSON), the wait it asks for."""

    status: int  # 200, too: some put an error in place of a completion
    body: object
    after: float | None = None  # seconds

    @property
    def meant(self) -> int:
        """The status that is meant: that of the body where the answer came with 200, and 503 where it has none."""
        said = _field(self.body, "code")
        inside = int(said) if said.isdigit() else 503
        return self.status if self.status >= 400 else inside if 400 <= inside < 600 else 503

    @property
    def kind(self) -> str:
        """Code and type of the error, as the server names them."""
        return f"{_field(self.body, 'code')} {_field(self.body, 'type')}"

    @property
    def filtered(self) -> bool:
        """Whether it is a content filter's refusal of what was asked."""
        return "content_filter" in self.kind

    @property
    def passes(self) -> bool:
        """Whether another try may succeed."""
        return not self.quota and (self.meant >= 500 or self.meant in PASSING)

    @property
    def quota(self) -> bool:
        """Whether the account has nothing left, rather than too many calls a minute."""
        words = _words(self.body)
        waits = self.after is not None or _PASSES.search(words)
        spent = self.meant == 402 or (self.meant == 429 and _QUOTA.search(words) and not waits)
        return bool(spent or _NO_QUOTA.search(self.kind))

    @property
    def too_long(self) -> bool:
        """Whether the prompt and the longest answer do not fit into the model."""
        said = f"{self.kind} {_words(self.body)}"
        return self.meant == 413 or (self.meant in INPUT and _TOO_LONG.search(said) is not None)

    def refuses(self, parameters: Iterable[str]) -> str | None:
        """Which of the PARAMETERS that were sent the server does not take, if that is what it says."""
        if self.meant not in INPUT or self.too_long:
            return None
        named, words = _field(self.body, "param"), _words(self.body)
        said = f"{self.kind} {words}"
        for name in parameters:
            # A limit may be wrong in its number alone: then another name for it would not mend it.
            refused = (_UNKNOWN if name == "max_tokens" else _UNWANTED).search(said)
            if refused and (named == name or (not named and re.search(rf"\b{name}\b", words))):
                return name
        return None

    def shown(self, *secrets: str) -> str:
        """Status and words on one line, with SECRETS, parts of them and what looks like a key struck out."""
        words = " ".join("".join(c if c.isprintable() else " " for c in _words(self.body)[:READ]).split())
        for secret in secrets:
            if len(secret) >= 8:
                # Servers repeat a key as a whole, or its ends around dots.
                ends = rf"\S*{re.escape(secret[:6])}\S*|\S*{re.escape(secret[-6:])}\S*"
                words = re.sub(rf"{re.escape(secret)}|{ends}", "***", words)
        words = _KEY.sub("***", words)
        words = words if len(words) <= LONGEST else f"{words[:LONGEST]}..."
        return f"status {self.status}" + (f": {words}" if words else "")


def _field(body: object, name: str) -> str:
    match body:
        case {"error": dict(inner)}:
            return _field(inner, name)
        case [first, *_]:
            return _field(first, name)
        case dict():
            found = body.get(name)
            return "" if found is None else str(found)
    return ""


def _words(body: object) -> str:
    """What BODY says to people; nothing of what it repeats of the request."""
    match body:
        case str():
            return "" if body.lstrip().startswith("<") else body
        case {"error": inner} | {"detail": inner}:
            return _words(inner)
        case {"message": str(words)}:
            return words
        case {"msg": str(words), "loc": list(place)}:  # pydantic's, of servers in Python
            return f"{'.'.join(map(str, place))}: {words}"
        case list():
            return "; ".join(filter(None, map(_words, body)))
    return ""
