"""A new judge in six lines, and a check that it keeps the contract.

`pamdp judge eval --plugin examples/add_a_judge.py --judge terse --pairs sample`
`pamdp train offline --plugin examples/add_a_judge.py --judge terse --run runs/terse`
"""

import pamdp
import pamdp.testing
from pamdp.registry import JUDGES


@pamdp.judge("terse")
def terse(case: pamdp.Case) -> float:
    """Probability that this person prefers reply A: whoever asks for short answers prefers the shorter one."""
    wants_short = any(word in case.persona.text.lower() for word in ("short", "terse", "brief", "plain"))
    longer = len(case.a) > len(case.b)
    return 0.5 if len(case.a) == len(case.b) else 0.2 if longer == wants_short else 0.8


if __name__ == "__main__":
    pamdp.testing.check_judge(JUDGES["terse"](pamdp.load_backbone))
    print("terse keeps the contract of a judge")
