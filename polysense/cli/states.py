"""The commands that work on games."""

from __future__ import annotations

import functools
from typing import Any

from polysense import rl
from polysense.cli.runs import line


@functools.wraps(rl.collect)
def collect(*args: Any, **kwargs: Any) -> None:
    line(f"wrote {len(rl.collect(*args, **kwargs)):,} steps to {kwargs['out']}")
