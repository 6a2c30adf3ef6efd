"""What may be said of a reply while it is written: no half character, and nothing that a stop text would take back.

Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

HALF = "\ufffd"
"""What stands for bytes that are no whole character yet."""


class Speech:
    """The text of one reply as it grows; `stopped` as soon as one of the STOP texts stands in it."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stop, self.said, self.stopped = tuple(stop), "", False

    def more(self, text: str) -> str:
        """What can be said now that the reply reads TEXT, and could not before."""
        return self._say(self._cut(text) if self.stopped else self._safe(self._cut(text)))

    def rest(self, text: str) -> str:
        """What is left to be said of a whole reply; `said` is all of it then."""
        return self._say(self._cut(text))

    def _cut(self, text: str) -> str:
        found = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        self.stopped = bool(found)
        return text[: min(found)] if found else text

    def _safe(self, text: str) -> str:
        """TEXT without an end that may turn out to be something else."""
        text = text.rstrip(HALF)
        begun = (n for stop in self.stop for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return text[: len(text) - max(begun, default=0)]

    def _say(self, text: str) -> str:
        if not text.startswith(self.said):
            return ""
        new, self.said = text[len(self.said) :], text
        return new
