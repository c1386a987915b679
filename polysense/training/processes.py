"""Which of several processes this one is, before and after they have found each other."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Whether this process writes the files; the others, started by Lightning or torchrun, only compute.

    >>> is_first()
    True
    """
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0
