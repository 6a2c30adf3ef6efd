"""Where an answer's thinking ends and what it says begins.

Owns the marks of thinking in a text. Knows nothing of servers that send it apart (openai.py), nor of what is asked.
"""

from __future__ import annotations

import re

_BEGIN = re.compile(r"<(?i:think|thinking|thought|reasoning)>|\[THINK\]")
_END = re.compile(r"</(?i:think|thinking|thought|reasoning)>|\[/THINK\]")
_WHOLE = re.compile(rf"(?:{_BEGIN.pattern}).*?(?:{_END.pattern})", re.S)


def without_thinking(text: str) -> str:
    """TEXT without what stands in <think> or its like; empty where it is not closed and nothing stands before it.

    Many templates open it themselves: what stands before an end without a beginning is thinking, too.
    """
    return _BEGIN.split(_END.split(_WHOLE.sub("", text))[-1])[0].strip()
