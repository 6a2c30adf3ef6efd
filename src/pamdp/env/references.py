"""The reference reply u_g of eq. 16, written by a language model that sees the history and not the profile.

Owns the question. Knows nothing of judges. Paper: the model that judges writes u_g inside its verdict; here it is a
call of its own, so that it can be another model's and is not influenced by the reply that it is compared with.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass

from pamdp.llm.ask import Asking, ask, readable, unquoted
from pamdp.llm.chat import ChatModel
from pamdp.prompts.render import load, transcript
from pamdp.types import History, Message, TimeStep


@dataclass(frozen=True, slots=True)
class WrittenReferences:
    """Writes u_g for moments; what it gives has to be waited for."""

    model: ChatModel
    how: Asking = Asking(max_tokens=128)

    @property
    def fingerprint(self) -> dict[str, str]:
        """The model's, the prompts' and how it is asked."""
        return {"role": "reference", **self.how.fingerprint(self.model, "reference", "reference_reminder")}

    def __call__(self, steps: Sequence[TimeStep]) -> list[Coroutine[object, object, list[str]]]:
        """u_g of each moment; raises AnswerError where none could be had, EndpointError where nobody answers."""
        return [self._write(step.history) for step in steps]

    async def _write(self, history: History) -> list[str]:
        asked = [Message("system", load("reference")), *history]
        said = await ask(
            self.model, asked, lambda text: readable(unquoted(text)), self.how, transcript(history),
            reminder="reference_reminder",
        )  # fmt: skip
        return [said]
