"""The command line: the front door's functions under their own names, options from their signatures."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import re
import sys
import typing
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn

import jsonargparse

from polysense.errors import PolysenseError, unknown

Command = Callable[..., int | None]

COMMANDS = {
    "pretrain": "pretrain an encoder on your data without labels",
    "resume": "go on with a run that was stopped or killed",
    "evaluate": "probe a run's encoder beside the untrained one and the raw input",
    "embed": "write embeddings with the names of their samples",
    "localise": "draw where the encoder sees objects, and print their boxes",
    "zeroshot": "classify pictures by the names of the classes alone",
    "search": "find pictures by words",
    "caption": "write a caption for each picture",
    "filter": "leave out pairs whose text does not describe the picture",
    "export": "write a run for open_clip, transformers or sentence-transformers",
    "collect": "play an environment and keep its frames, to learn states from",
    "augment": "write more rows than a table has",
    "impute": "fill the holes of a table",
    "generate": "draw rows like those of a table, free or by condition",
    "report": "write a run's report.html anew",
    "methods": "list the methods, or show one with its defaults",
    "encoders": "list the encoders that have a name",
    "data": "list the data sets that come with the package",
}
"""Every command with a line on it."""

_MODULES = {
    **dict.fromkeys(("methods", "encoders", "data"), "listing"),
    **dict.fromkeys(("collect",), "states"),
    **dict.fromkeys(("augment", "impute", "generate"), "tables"),
}
"""The modules of commands that are not in :mod:`polysense.cli.runs`."""

_OPTION = re.compile(r"--[a-z][a-z_]*")
_PLAIN = (str, int, float, bool, type(None))


class Parser(jsonargparse.ArgumentParser):
    """Options with dashes, and one sentence for what does not fit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage."""
        known = [action.dest for action in self._actions]
        if stray := re.search(r"Option '(\w+)' is not accepted", message):
            raise unknown("option", stray[1], known)
        if key := re.search(r"[Pp]arser key \"([\w.]+)\"|argument --?([\w.]+)", message):
            name = key[1] or key[2]
            if name == "config":
                raise PolysenseError(f"cannot read the options: {message.split(': ', 1)[-1]}")
            kinds = [getattr(action, "_typehint", None) for action in self._actions if action.dest == name]
            wanted = f": give {_words(kinds[0])}" if kinds else ""
            value = re.search(r"Given value: (.*)", message)
            said = repr(value[1]) if value else "the value"
            raise PolysenseError(
                f"cannot read {said} as {_dashed(f'--{name}')}{wanted}; see {self.prog} --help"
            )
        raise PolysenseError(f"{_dashed(' '.join(message.split()))}; see {self.prog} --help")

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help with dashes in the options' names."""
        return _dashed(super().format_help(*args, **kwargs))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit code 2 and one sentence for what the user can mend."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("polysense").setLevel(logging.INFO)
    try:
        return _run(given)
    except PolysenseError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if given[0] == "--version":
        print(f"polysense {importlib.import_module('polysense').__version__}")
        return 0
    name = given[0]
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    function: Command = getattr(module_of(name), name)
    values = _parser(name, function).parse_args(_rewritten(given[1:], function)).as_dict()
    values.pop("config", None)
    return function(**values) or 0


def module_of(name: str) -> ModuleType:
    """The module in which a command's function stands, under the command's name; it is loaded now."""
    return importlib.import_module(f"polysense.cli.{_MODULES.get(name, 'runs')}")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()]
    return "\n".join(
        [
            "usage: polysense COMMAND ...",
            "",
            "Self-supervised learning across modalities.",
            "",
            *lines,
            "",
            "polysense COMMAND --help shows a command's options; --debug shows the traceback of an error.",
        ]
    )


def _parser(name: str, function: Command) -> Parser:
    jsonargparse.set_parsing_settings(parse_optionals_as_positionals=True)
    text = inspect.getdoc(function) or ""
    examples = re.findall(r"^\s*\$ (polysense .*)$", text, re.MULTILINE)
    parser = Parser(
        prog=f"polysense {name}",
        description=text.splitlines()[0] + (f" Examples: {'; '.join(examples)}" if examples else ""),
    )
    parser.add_argument("--config", action="config", help="a YAML file with the same options")
    several = _of_several(function)
    parser.add_function_arguments(_for_shell(function), as_positional=True, skip=set(several))
    for last in several:
        parser.add_argument(last, nargs="+", type=str, help="one or more")
    return parser


def _of_several(function: Command) -> list[str]:
    """The required parameters that take a sequence: on a command line, all the words that are left."""
    hints = typing.get_type_hints(function)
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and typing.get_origin(hints[name]) is Sequence
    ]


def _for_shell(function: Command) -> Command:
    """The function without parameters that only take Python objects, the others narrowed to plain types."""
    hints = typing.get_type_hints(function)
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        plain = _plain_type(hints[parameter.name], required=parameter.default is parameter.empty)
        if plain is not None:
            parameters.append(parameter.replace(annotation=plain))

    @functools.wraps(function)
    def narrowed(*args: Any, **kwargs: Any) -> int | None:
        return function(*args, **kwargs)

    narrowed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    narrowed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return narrowed


def _plain_type(hint: Any, *, required: bool) -> Any:
    """What of a type can be written on a command line; None when nothing can."""
    if hint is Any:
        return str if required else str | None
    if typing.get_origin(hint) in (dict, list, Sequence):
        return hint
    choices = typing.get_args(hint) or (hint,)
    plain = [choice for choice in choices if choice in _PLAIN or typing.get_origin(choice) in (dict, list)]
    if not [choice for choice in plain if choice is not type(None)]:
        return None
    return functools.reduce(lambda one, other: one | other, plain)


def _rewritten(given: Sequence[str], function: Command) -> list[str]:
    """Dashes to underscores in option names, and "true" behind flags that stand alone."""
    hints = typing.get_type_hints(function)
    known = [*inspect.signature(function).parameters, "config", "print_config", "help"]
    words: list[str] = []
    for place, word in enumerate(given):
        if not word.startswith("--"):
            words.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        first, dot, rest = name.partition(".")
        first = first.replace("-", "_").removesuffix("+")
        if first not in known:
            raise unknown("option", _dashed(f"--{first}"), [_dashed(f"--{option}") for option in known])
        words.append(f"--{first}{dot}{rest}{equals}{value}")
        following = given[place + 1] if place + 1 < len(given) else ""
        if hints.get(first) is bool and not equals and following not in ("true", "false"):
            words.append("true")
    return words


def _words(kind: Any) -> str:
    """A type as a person says it."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    choices = [
        names.get(choice, "name: value pairs")
        for choice in typing.get_args(kind) or (kind,)
        if choice is not type(None)
    ]
    return " or ".join(choices)


def _dashed(text: str) -> str:
    return _OPTION.sub(lambda option: option[0].replace("_", "-"), text)
