"""What can go wrong at the user's end, said in one sentence each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import ModuleType


class PolysenseError(Exception):
    """Something the user can mend. The message is one sentence: what is wrong, and how to fix it.

    The command line prints it without a traceback and exits with code 2.
    """


def unknown(what: str, name: str, known: Iterable[str]) -> PolysenseError:
    """The error for a name that is not in a list, with the nearest names that are.

    >>> print(unknown("method", "simclear", ["simclr", "byol"]))
    unknown method 'simclear'; did you mean 'simclr'?
    >>> print(unknown("method", "xyz", ["simclr", "byol"]))
    unknown method 'xyz'; choose from byol, simclr
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.55)
    if near:
        return PolysenseError(f"unknown {what} {name!r}; did you mean {' or '.join(map(repr, near))}?")
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return PolysenseError(f"unknown {what} {name!r}; choose from {shown}")


def require(package: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say in one sentence which extra brings it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise PolysenseError(
            f"{purpose} needs the package {package!r}: pip install 'polysense[{extra}]'"
        ) from error
