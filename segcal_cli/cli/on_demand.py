"""Sub-commands that are imported when they are asked for.

A command's module says its options, and putting them all together takes longer than a small scan. A run needs one of
them; the list that ``segcal --help`` shows needs none, but their names and first sentences.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


class Built(MutableMapping[str, Any]):
    """Name -> command, built when first looked up.

    modules: name -> module, which holds a ``typer.Typer`` called ``app``, or one command of the module's own name.
    """

    def __init__(self, modules: dict[str, str]) -> None:
        self.modules = modules
        self.built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self.built:
            self.built[name] = _built(name, self.modules[name])
        return self.built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self.built[name] = command

    def __delitem__(self, name: str) -> None:
        del self.modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)


def _built(name: str, module: str) -> Any:
    loaded = importlib.import_module(module)
    command: Any
    if hasattr(loaded, "app"):
        command = get_group(loaded.app)
    else:
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
        alone.command(name)(getattr(loaded, module.rpartition(".")[2]))
        command = get_command(alone)
    command.name = name
    return command


def group_of(modules: dict[str, str], summaries: dict[str, str]) -> type[TyperGroup]:
    """The class of a group with these sub-commands. summaries: what the list of commands says of each."""

    class OnDemand(TyperGroup):
        """Loads a sub-command when it is run; lists all of them from their summaries."""

        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands: MutableMapping[str, Any] = Built(modules)

        def list_commands(self, ctx: Any) -> list[str]:
            return list(self.commands)

        def format_help(self, ctx: Any, formatter: Any) -> None:
            with self._summarised():
                super().format_help(ctx, formatter)

        def shell_complete(self, ctx: Any, incomplete: str) -> Any:
            with self._summarised():
                return super().shell_complete(ctx, incomplete)

        @contextlib.contextmanager
        def _summarised(self) -> Iterator[None]:
            whole = self.commands
            self.commands = {name: TyperCommand(name, help=summaries[name]) for name in modules}
            try:
                yield
            finally:
                self.commands = whole

    return OnDemand
