"""What replies are like as texts, whatever any judge says of them: length, variety, repetition, likelihood.

Owns these measures and their means over states with intervals over users. Knows nothing of methods and judges. A
measure per reply gets an interval; distinct-n belongs to a set of replies and has none.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from pamdp.evaluation.significance import Estimate, cluster_bootstrap


@dataclass(frozen=True, slots=True)
class TextReport:
    """The replies of one method.

    Attributes:
      words, repetition: mean length; and mean share of a reply's word triples that it has already said.
      nll: nats per token of the preferred replies; unknown where the method has no likelihood.
      distinct_1, distinct_2: different words, or pairs of words, among all of them.
      n, empty: replies, and those of them without a word.
    """

    words: Estimate
    repetition: Estimate
    nll: Estimate
    distinct_1: float
    distinct_2: float
    empty: int
    n: int


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def distinct(replies: Sequence[str], n: int) -> float:
    """Distinct-n: different n-grams over all n-grams of the replies together; 0 where there are none.

        |{g}| / Σ g

    It falls with the number of replies, so only methods with equally many are compared by it.
    """
    grams = [gram for reply in replies for gram in zip(*(words(reply)[i:] for i in range(n)), strict=False)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(reply: str, n: int = 3) -> float:
    """The share of a reply's n-grams that stood in it before; 0 for a reply too short to repeat itself."""
    return 1 - distinct([reply], n) if len(words(reply)) >= n else 0.0


def describe(
    replies: Sequence[str], nll: Sequence[float | None], clusters: Sequence[Hashable], n: int = 10_000
) -> TextReport:
    """All measures of one method's replies, with intervals from N resamples; a DataError where there are none.

    NLL is nats per token of each state's preferred reply, None where it is not known; a reply's cluster is its user.
    """
    return TextReport(
        words=cluster_bootstrap([len(words(reply)) for reply in replies], clusters, n=n),
        repetition=cluster_bootstrap([repetition(reply) for reply in replies], clusters, n=n),
        nll=cluster_bootstrap(nll, clusters, n=n),
        distinct_1=distinct(replies, 1),
        distinct_2=distinct(replies, 2),
        empty=sum(not words(reply) for reply in replies),
        n=len(replies),
    )
