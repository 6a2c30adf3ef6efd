"""The error tree: every failure a user can cause or mend is a PamdpError with one clear line.

Owns what an error says (what, where, what to do). Knows nothing of who raises it.
"""

from __future__ import annotations

from pathlib import Path


class PamdpError(Exception):
    """Base of all errors that the command line shows as one line, without a traceback."""


class ShapeError(PamdpError):
    """Tensors whose shapes must agree do not; the message names each argument and its shape."""


class ConfigError(PamdpError):
    """A setting is unknown, of the wrong type or out of range."""


class ModelError(PamdpError):
    """A model is missing or cannot be used; the message says which command brings it."""


class JudgeError(PamdpError):
    """A verdict could not be had; the transition is masked, never scored."""


class AnswerError(PamdpError):
    """A language model's answer could not be used, after being asked again; what hangs on it is masked.

    Args:
      what: the fault in one phrase.
      reason: what kind of fault it is, in a word or two, by which faults are counted.
    """

    def __init__(self, what: str, reason: str = "unreadable") -> None:
        self.reason = reason
        super().__init__(what)


class EndpointError(PamdpError):
    """A language model cannot be reached or refuses to work; the run pauses with what is done saved."""


class ContextLengthError(EndpointError):
    """A prompt and the answer that was asked for do not fit into the language model."""


class RunError(PamdpError):
    """A run directory is missing, foreign or incomplete."""


class StoreError(PamdpError):
    """What a server remembers cannot be opened, read or written now; nothing that was acknowledged is lost."""


class DataError(PamdpError):
    """Bad input data: what is wrong, in which file and line, and what to do about it.

    Args:
      what: the fault in one phrase.
      path: the file, if known.
      line: 1-based line (or item) number, if known.
      fix: what the reader can do.
    """

    def __init__(self, what: str, path: str | Path | None = None, line: int | None = None, fix: str = "") -> None:
        self.what, self.path, self.line, self.fix = what, path, line, fix
        where = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(f"{where}{what}" + (f" ({fix})" if fix else ""))
