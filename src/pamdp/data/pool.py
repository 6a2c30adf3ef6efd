"""Users from ALOE's pool of personas: people without a record, each a profile with a personality.

Owns which personality a profile gets, and names. Knows nothing of where such users may stand in for records. A profile
is one person (aloe.py), so it is profiles that are split; where more users are asked for than there are profiles, the
same people come again with other personalities.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pamdp.data.fields import name_for
from pamdp.data.files import data_files, sha256
from pamdp.data.load import POOL, Loaded, load_personas
from pamdp.errors import ConfigError
from pamdp.types import Dialogue, Persona


def load_pool(path: str | Path, seed: int = 0, skip_bad: bool = False, times: int = 1) -> Loaded:
    """Users of a pool as dialogues without turns, all profiles with one personality, then with the next one.

    Args:
      path: a folder with profile.jsonl and personality.jsonl.
      seed: another seed, other pairs.
      skip_bad: leave bad lines out and count them, and take two texts on a line one by one.
      times: how many personalities each profile gets.

    Raises:
      ConfigError: there are not so many personalities.
      DataError: a file cannot be read, or a line is bad and not to be skipped.
    """
    manners, people = (load_personas(Path(path) / name, skip_bad) for name in POOL)
    personalities, profiles = list(dict.fromkeys(manners)), list(dict.fromkeys(people))
    if times > len(personalities):
        raise ConfigError(
            f"{path} has {len(personalities)} personalities, so each of its {len(profiles)} profiles can be that many "
            f"users, and {times} are asked for; ask for fewer users"
        )
    ranked = [_ranked(personalities, profile, seed) for profile in profiles]
    users = tuple(
        Dialogue(f"{name_for(profile)}/{k + 1}", name_for(profile), Persona(profile, order[k]), ())
        for k in range(times)
        for profile, order in zip(profiles, ranked, strict=True)
    )
    repaired = Counter(manners.repaired) + Counter(people.repaired)
    return Loaded("personas", sha256(data_files(Path(path))), (*manners.skipped, *people.skipped), repaired, users)


def _ranked(personalities: Sequence[str], profile: str, seed: int) -> list[str]:
    """In an order that is the profile's own and stays what it is when the pool grows."""
    return sorted(personalities, key=lambda text: hashlib.sha256(f"{seed}:{profile}:{text}".encode()).digest())
