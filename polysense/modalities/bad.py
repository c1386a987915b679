"""What is done about samples that cannot be read: a few are named and skipped, more are an error."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from polysense.errors import PolysenseError

logger = logging.getLogger(__name__)

Bad = Sequence[tuple[str, str]]
"""Name and reason of each sample that cannot be read."""


def check_bad(bad: Bad, total: int, max_bad: float, what: str) -> None:
    """Refuse bad samples above the share ``max_bad`` of ``total``; ``what`` the samples are, in the plural.

    Raises:
        PolysenseError: naming the first of them.

    >>> check_bad([("a.txt", "is empty")], total=1, max_bad=1.0, what="texts")
    Traceback (most recent call last):
    ...
    polysense.errors.PolysenseError: cannot read 1 of 1 texts (100.0 %): a.txt: is empty; none is left to ...
    """
    share = len(bad) / total
    if len(bad) < total and share <= max_bad:
        return
    told = f"cannot read {_summary(bad, total, what)}"
    if len(bad) == total:
        raise PolysenseError(f"{told}; none is left to learn from")
    enough = math.ceil(share * 100) / 100
    raise PolysenseError(f"{told}; mend or remove them, or allow so many with --max-bad {enough:g}")


def tell_bad(bad: Bad, total: int, what: str) -> None:
    """Name those that are skipped in a warning."""
    if bad:
        logger.warning("skipped %s", _summary(bad, total, what))


def _summary(bad: Bad, total: int, what: str) -> str:
    first = "; ".join(f"{name}: {reason}" for name, reason in bad[:5])
    more = "; …" if len(bad) > 5 else ""
    return f"{len(bad)} of {total} {what} ({100 * len(bad) / total:.1f} %): {first}{more}"
