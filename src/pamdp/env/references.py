"""The reference reply u_g of eq. 16, written by a language model that sees the history and not the profile.

Owns the question. Knows nothing of judges. Paper: the model that judges writes u_g inside its verdict; here it is a
call of its own, so that it can be another model's and is not influenced by the reply that it is compared with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine, Sequence

from pamdp.llm.ask import ask, readable, unquoted
from pamdp.llm.chat import ChatModel, Decoding
from pamdp.prompts.render import load, transcript
from pamdp.seeds import seed_of
from pamdp.types import History, Message, TimeStep

PROMPTS = ("reference", "reference_reminder")


class WrittenReferences:
    """Writes u_g for moments; what it gives has to be waited for.

    Args:
      model: writes.
      attempts: most answers asked for where one cannot be used.
      temperature, max_tokens: of the model.
      seed: of the draws.
    """

    def __init__(
        self, model: ChatModel, attempts: int = 3, temperature: float = 0.0, max_tokens: int = 128, seed: int = 0
    ) -> None:
        self.model, self.attempts, self.seed = model, attempts, seed
        self.decoding = Decoding(temperature, max_tokens)

    @property
    def fingerprint(self) -> dict[str, str]:
        """The model's, the prompts' and how it is asked."""
        prompt = hashlib.sha256("".join(map(load, PROMPTS)).encode()).hexdigest()[:12]
        return {
            "role": "reference", **self.model.fingerprint, "prompt": prompt,
            "temperature": f"{self.decoding.temperature:g}", "seed": str(self.seed),
        }  # fmt: skip

    def __call__(self, steps: Sequence[TimeStep]) -> list[Coroutine[object, object, list[str]]]:
        """u_g of each moment; raises AnswerError where none could be had, EndpointError where nobody answers."""
        return [self._write(step.history) for step in steps]

    async def _write(self, history: History) -> list[str]:
        found = await ask(
            self.model, [Message("system", load("reference")), *history], _written, decoding=self.decoding,
            seed=seed_of(self.seed, transcript(history)), attempts=self.attempts, reminder="reference_reminder",
        )  # fmt: skip
        return [found]


def _written(text: str) -> str:
    return readable(unquoted(text))
