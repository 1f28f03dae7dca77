"""Options made of records: every field of a record of ``workflows/requests.py`` becomes one option of a command.

The records hold types and defaults, ``cli/words`` spelling and help; ``expanded`` joins them, so that no option is
declared twice and every command spells it the same.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from segcal_cli.cli import config, settings
from segcal_cli.cli.console import QUIET, Console
from segcal_cli.cli.words import calibrate, cluster, conformal_sets, measuring, ntr_interval, shared
from segcal_cli.cli.words.spelling import TALKING, Words, plain
from segcal_cli.core.frozen import dataclass

Predictions = Annotated[
    Path,
    typer.Argument(
        metavar="PREDICTIONS", help="Folder (or one file) of logit or probability volumes.", show_default=False
    ),
]
Labels = Annotated[
    Path, typer.Argument(metavar="LABELS", help="Folder (or one file) of label volumes.", show_default=False)
]
OptionalPredictions = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PREDICTIONS]", help="Folder (or one file) of logit or probability volumes.", show_default=False
    ),
]
OptionalLabels = Annotated[
    Path | None, typer.Argument(metavar="[LABELS]", help="Folder (or one file) of label volumes.", show_default=False)
]
ArtifactFile = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="An artifact that `fit` wrote (.npz).", show_default=False)
]


def _is_binary(path: Path) -> bool:
    """Whether a file is a scan, say, rather than a log: a log is appended to, and nobody would get the scan back."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"\0" in file.read(BEGINNING)


def _refuse_shard(value: str | None) -> None:
    if value is not None:
        raise typer.BadParameter(
            "pictures are drawn of all cases at once. Split evaluate --shard I/N, join the parts with segcal merge "
            "--histograms counts.npz, and draw with reliability --from counts.npz"
        )


NoShard = Annotated[
    str | None,
    typer.Option(
        "--shard", help="Refused, with what to do instead.", hidden=True, metavar="I/N", callback=_refuse_shard
    ),
]


BEGINNING = 4096
"""So many bytes of a file are looked at: every format that segcal reads or writes has a zero byte among them."""


@dataclass(frozen=True, slots=True)
class Talking:
    """What is said, and where; and what was said elsewhere. notices: warnings about that, no option."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    log_file: Path | None = None
    config: Path | None = None
    print_config: bool = False
    notices: tuple[str, ...] = ()

    def console(self) -> Console:
        try:
            if self.log_file is not None and _is_binary(self.log_file):
                raise typer.BadParameter(f"{self.log_file} is no text file", param_hint="--log-file")
            console = Console(QUIET if self.quiet else self.verbose, self.log_file)
        except OSError as error:
            what = f"cannot write {self.log_file}: {(error.strerror or str(error)).lower()}"
            raise typer.BadParameter(what, param_hint="--log-file") from error
        for notice in self.notices:
            console.warn(notice)
        return console


REGISTRY: dict[type, dict[str, Words]] = {
    **shared.WORDS,
    **measuring.WORDS,
    **calibrate.WORDS,
    **conformal_sets.WORDS,
    **cluster.WORDS,
    **ntr_interval.WORDS,
    Talking: {
        "json": Words(("--json",), "Print one JSON document on stdout.", TALKING),
        "quiet": Words(("--quiet", "-q"), "Errors only.", TALKING),
        "verbose": Words(
            ("--verbose", "-v"), "Say more; twice for debugging.", TALKING, count=True, show_default=False
        ),
        "log_file": plain("--log-file", "Append every message, with its time, to FILE.", TALKING, "FILE"),
        "config": plain(
            "--config",
            "Options from a TOML file, named as here; a table per command beats the top level. Flags beat SEGCAL_* "
            "(SEGCAL_JOBS=4), which beats the file.",
            TALKING,
            "FILE.toml",
            callback=config.load,
        ),
        "print_config": Words(
            ("--print-config",), "Print all options as TOML, each with who set it, and leave.", TALKING
        ),
    },
}


def expanded(function: Callable[..., None]) -> Callable[..., None]:
    """The command, with each record among its parameters taken apart into one option per field."""
    hints = typing.get_type_hints(function, include_extras=True)
    records = {name: hint for name, hint in hints.items() if hint in REGISTRY}
    signature = inspect.signature(function)
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name in records:
            parameters += _options(name, records[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name]))
    parameters.append(inspect.Parameter(CONTEXT, inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    parameters.sort(key=lambda parameter: parameter.kind)

    @functools.wraps(function)
    def command(**arguments: Any) -> None:
        context = arguments.pop(CONTEXT)
        rebuilt = {name: _record(name, record, arguments, context) for name, record in records.items()}
        if any(isinstance(record, Talking) and record.print_config for record in rebuilt.values()):
            sys.stdout.write(config.resolved(context))
            raise typer.Exit
        function(**arguments, **rebuilt)

    settings.register(function, parameters)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


CONTEXT = "_context"
"""The parameter by which typer hands over what it knows of the options."""


def _origins(context: typer.Context) -> dict[str, str]:
    said = {name: config.origin_of(context, name) for name in context.params}
    return {name.rpartition("__")[2]: origin for name, origin in said.items() if origin != "default"}


def _notices(context: typer.Context) -> tuple[str, ...]:
    return tuple(context.meta.get(config.NOTICES, ()))


FILLED_IN: dict[str, Callable[[typer.Context], Any]] = {"origins": _origins, "notices": _notices}
"""Fields of records that are no options: the command line itself knows them."""


def _options(prefix: str, record: type) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(record)
    made = []
    for field in dataclasses.fields(record):
        if field.name in FILLED_IN:
            continue
        words = REGISTRY[record][field.name]
        hint, default = hints[field.name], field.default
        if typing.get_origin(hint) is tuple:
            hint, default = list[str], []
        option = typer.Option(
            *words.flags,
            help=words.help,
            rich_help_panel=words.panel,
            metavar=words.metavar,
            count=words.count,
            callback=words.callback,
            is_eager=words.callback is not None,
            show_default=words.show_default and not (default is None or default is False or default == []),
        )
        made.append(
            inspect.Parameter(
                f"{prefix}__{field.name}",
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[hint, option],
            )
        )
    return made


def _record(prefix: str, record: type, arguments: dict[str, Any], context: typer.Context) -> Any:
    names = [field.name for field in dataclasses.fields(record)]
    values = {
        name: FILLED_IN[name](context) if name in FILLED_IN else arguments.pop(f"{prefix}__{name}") for name in names
    }
    return record(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
