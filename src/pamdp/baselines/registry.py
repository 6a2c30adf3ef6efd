"""All methods that come with the package, and files that bring more.

Owns which modules are read so that their methods are known. A new method is a file that calls `register`
(examples/add_a_method.py).
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path

from pamdp.baselines import grpo, latent, peft, preference, prompt, sft
from pamdp.baselines.method import Method, find, names, register
from pamdp.errors import ConfigError

__all__ = ["MODULES", "Method", "find", "load_methods", "names", "register"]

MODULES = (prompt, peft, sft, latent, preference, grpo)


def load_methods(files: Sequence[Path]) -> None:
    """Run Python files that register methods.

    Raises:
      ConfigError: a file is missing.
    """
    for file in files:
        if not file.is_file():
            raise ConfigError(f"no file {file}; --method takes a Python file that registers a method")
        runpy.run_path(str(file))
