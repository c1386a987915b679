"""The command line: what each command does and tells, and the options that it takes."""

from polysense.cli.main import COMMANDS, main, module_of

__all__ = ["COMMANDS", "main", "module_of"]
