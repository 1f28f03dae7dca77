"""Every option of every command by its long name, as files and the environment know it.

Taken from the functions of the commands, whose parameters carry type and flags, so that nothing hangs on the inside of
the library that parses the command line.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from segcal_cli.core.frozen import dataclass

PREFIX = "SEGCAL_"

NOT_SETTABLE = frozenset({"help", "config", "print-config", "version", "install-completion", "show-completion"})
"""Options that a file does not set: they are about a single call."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An option of a command by one of its long names. parameter: of the command's function; hint: its type; off: the
    name turns it off (``no-summary``); count: it counts how often it is given.
    """

    parameter: str
    hint: Any
    off: bool = False
    count: bool = False

    @property
    def multiple(self) -> bool:
        return typing.get_origin(self.hint) is list

    @property
    def kind(self) -> type:
        """The type of one value: bool, int, float, str, Path, or Literal for words from a list."""
        kind = typing.get_args(self.hint)[0] if self.multiple else self.hint
        if typing.get_origin(kind) in (types.UnionType, typing.Union):
            kind = next(part for part in typing.get_args(kind) if part is not type(None))
        return Literal if typing.get_origin(kind) is Literal else kind

    @property
    def words(self) -> tuple[str, ...]:
        """What may be said, where that is a list of words."""
        parts = typing.get_args(self.hint) if typing.get_origin(self.hint) is not Literal else (self.hint,)
        return next((typing.get_args(part) for part in parts if typing.get_origin(part) is Literal), ())

    @property
    def switch(self) -> bool:
        return self.kind is bool


SETTINGS: dict[Callable[..., None], dict[str, Setting]] = {}
"""The function of a command -> its options by long name."""


def register(function: Callable[..., None], parameters: Iterable[inspect.Parameter]) -> None:
    """Remember the options of a command. parameters: annotated for typer."""
    found: dict[str, Setting] = {}
    for parameter in parameters:
        hint, *rest = typing.get_args(parameter.annotation) or (None,)
        option = next((info for info in rest if hasattr(info, "count")), None)
        if option is None:
            continue
        # In an annotation, typer's place for a default holds the first flag.
        for flags in filter(_is_text, (option.default, *(option.param_decls or ()))):
            on, _, off = flags.partition("/")
            for flag, turned_off in ((on.strip(), False), (off.strip(), True)):
                if flag.startswith("--") and flag[2:] not in NOT_SETTABLE:
                    found[flag[2:]] = Setting(parameter.name, hint, turned_off, bool(option.count))
    SETTINGS[function] = found


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def settings_of(command: Any) -> dict[str, Setting]:
    """Long option name without dashes -> the option, of one command."""
    return SETTINGS.get(inspect.unwrap(command.callback), {})


def commands(group: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group, with its words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


def variable_of(name: str) -> str:
    """``on-failure`` -> ``SEGCAL_ON_FAILURE``."""
    return PREFIX + name.upper().replace("-", "_")
