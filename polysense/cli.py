"""The command line: the front door's functions under their own names, options from their signatures."""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jsonargparse

from polysense.errors import PolysenseError, unknown

_OPTION = re.compile(r"--[a-z][a-z_]*")


class Parser(jsonargparse.ArgumentParser):
    """Options with dashes, flags without a value, and one sentence for what does not fit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage."""
        options = [
            name for action in self._actions for name in action.option_strings if name.startswith("--")
        ]
        if stray := re.search(r"[Uu]nrecognized arguments: (--[\w.-]+)", message):
            raise unknown("option", stray[1].replace("_", "-"), [name.replace("_", "-") for name in options])
        short = " ".join(message.split())
        raise PolysenseError(_dashed(short) + f"; see {self.prog.split(' [')[0]} --help")

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help with dashes in the options' names."""
        return _dashed(super().format_help(*args, **kwargs))


def _dashed(text: str) -> str:
    return _OPTION.sub(lambda option: option[0].replace("_", "-"), text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit code 2 and one sentence for what the user can mend."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("polysense").setLevel(logging.INFO)
    try:
        parser, commands = _parser(given)
        chosen = parser.parse_args(_rewritten(given, commands))
        name = chosen.subcommand
        values = chosen[name].as_dict()
        values.pop("config", None)
        result = commands[name](**values)
        return result if isinstance(result, int) else 0
    except PolysenseError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser(given: Sequence[str]) -> tuple[Parser, dict[str, Callable[..., Any]]]:
    from polysense import commands

    parser = Parser(
        prog="polysense",
        description="Self-supervised learning across modalities. Each command has --help with examples;"
        " --debug shows the traceback of an error.",
    )
    from polysense import __version__

    parser.add_argument("--version", action="version", version=f"polysense {__version__}")
    choice = parser.add_subcommands(required=True, metavar="COMMAND")
    table = commands.table()
    known = {word for word in given if not word.startswith("-")}
    if given and not given[0].startswith("-") and given[0] not in table:
        raise unknown("command", given[0], table)
    for name, function in table.items():
        inner = Parser(description=_description(function), formatter_class=jsonargparse.DefaultHelpFormatter)
        if name in known:  # only the chosen command's signature is resolved: that keeps the others' cost away
            inner.add_argument("--config", action="config", help="a YAML file with the same options")
            inner.add_function_arguments(_for_shell(function), as_positional=True)
        choice.add_subcommand(name, inner, help=(inspect.getdoc(function) or "").splitlines()[0])
    return parser, table


def _description(function: Callable[..., Any]) -> str:
    """A command's first lines and its shell examples."""
    text = inspect.getdoc(function) or ""
    examples = re.findall(r"^\s*(\$ polysense .*)$", text, re.MULTILINE)
    return text.splitlines()[0] + ("  Examples:  " + "   ".join(examples) if examples else "")


def _for_shell(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without parameters that only take Python objects, the others narrowed to plain types."""
    hints = typing.get_type_hints(function)
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        plain = _plain_type(hints[parameter.name])
        if plain is not None:
            parameters.append(parameter.replace(annotation=plain))

    @functools.wraps(function)
    def narrowed(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    narrowed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    narrowed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return narrowed


_PLAIN = (str, int, float, bool, type(None))


def _plain_type(hint: Any) -> Any:
    """What of a type can be written on a command line; None when nothing can."""
    if hint is Any:
        return str | None
    if typing.get_origin(hint) in (dict, Sequence) or typing.get_origin(hint) is list:
        return hint
    choices = typing.get_args(hint) or (hint,)
    plain = [choice for choice in choices if choice in _PLAIN or typing.get_origin(choice) in (dict, list)]
    if not [choice for choice in plain if choice is not type(None)]:
        return None
    return functools.reduce(lambda one, other: one | other, plain)


def _rewritten(given: Sequence[str], commands: dict[str, Callable[..., Any]]) -> list[str]:
    """Dashes to underscores in option names, and "true" behind flags that stand alone."""
    words: list[str] = []
    function = commands.get(given[0]) if given else None
    hints = typing.get_type_hints(function) if function is not None else {}
    for place, word in enumerate(given):
        if not word.startswith("--"):
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        first, dot, rest = name[2:].partition(".")
        first = first.replace("-", "_")
        words.append(f"--{first}{dot}{rest}{equals}{value}")
        following = given[place + 1] if place + 1 < len(given) else "--"
        if hints.get(first) is bool and not equals and following not in ("true", "false"):
            words.append("true")
    return words


if __name__ == "__main__":
    sys.exit(main())
