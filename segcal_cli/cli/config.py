"""Options from elsewhere: a TOML file (``--config``), and the environment (``SEGCAL_*``).

A flag beats the environment, which beats the file, which beats the default. The file names options as the command line
does; a table per command beats the top level. Both are checked before anything else: a misspelled option in a file that
nobody looks at would otherwise be silence.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import typer

from segcal_cli.cli.settings import PREFIX, Setting, commands, settings_of, variable_of
from segcal_cli.core.errors import UsageError

VARIABLE = "SEGCAL_CONFIG"
"""The environment's name for ``--config``."""

MAX_BYTES = 16 * 2**20
"""More than this is no file of options."""

ORIGINS, NOTICES = "segcal.origins", "segcal.notices"
"""Keys of what is remembered beside a command's options: who said them, and what is to be warned about."""

FILES = frozenset({"member", "artifact", "also"})
"""Options that name input files or folders, though their type is text: ``NAME=PATH``."""

MAYBE_FILES = FILES | {"groups", "weights", "mondrian", "by", "learn"}
"""Options whose text may be a path, or something else."""

EXPECTED: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    Literal: "a word",
}
"""What a value of the wrong type should have been."""

BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


class BadConfig(UsageError):
    """A file of options that cannot be used. Arguments: file, line, what."""

    template = "{0}:{1}: {2}"


class NoConfig(UsageError):
    """A file of options that cannot be read."""

    template = "--config: {0} {1}"


class BadVariable(UsageError):
    """A value in the environment that the option does not take."""

    template = "{0}={1}: {2}"


def load(context: typer.Context, value: Path | None) -> Path | None:
    """What ``--config`` does: set the defaults of all other options. Leaves with 2 where something is wrong."""
    try:
        _set_defaults(context, value)
    except UsageError as error:
        sys.stderr.write(f"segcal: {error} (exit 2)\n")
        raise typer.Exit(2) from None
    return value


def _set_defaults(context: typer.Context, value: Path | None) -> None:
    settings = settings_of(context.command)
    path = value or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    found: dict[str, tuple[Any, str]] = {}
    if path is not None:
        for name, (given, line) in _of_file(path, context).items():
            if name in settings:
                setting = settings[name]
                found[setting.parameter] = (_from_toml(path, line, name, given, setting), "config")
    for name, setting in settings.items():
        text = os.environ.get(variable_of(name))
        if text is not None and by_environment(name, setting):
            found[setting.parameter] = (_from_text(name, text, setting), "environment")
    context.default_map = {name: value for name, (value, _) in found.items()}
    context.meta[ORIGINS] = {name: origin for name, (_, origin) in found.items()}
    context.meta[NOTICES] = tuple(_unknown_variables(context))


def by_environment(name: str, setting: Setting) -> bool:
    """Whether the environment may set an option: not where it names an input or an output."""
    return name == "log-file" or not (setting.kind is Path or name in FILES)


def _unknown_variables(context: typer.Context) -> Iterator[str]:
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    known = {VARIABLE, *_variables(context.command)}
    if known.issuperset(given):  # which spares the other commands, all of which would have to be put together
        return
    for _, command in commands(context.find_root().command):
        known |= _variables(command)
    for name in given:
        if name not in known:
            # Compared without the prefix, which makes any two of these names alike.
            meant = _meant(name.removeprefix(PREFIX), {one.removeprefix(PREFIX) for one in known}, PREFIX)
            yield f"{name} is not used: no option is set by it{meant}"


def _variables(command: Any) -> set[str]:
    """The environment's names for a command's options."""
    return {variable_of(name) for name, setting in settings_of(command).items() if by_environment(name, setting)}


def _of_file(path: Path, context: typer.Context) -> dict[str, tuple[Any, int]]:
    """Option name -> (value, line) for the command that runs. Every key of the file is checked, whoever it is for."""
    import tomllib

    text = _text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at (?:line (\d+), column \d+|end of document)\)", str(error))
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        raise BadConfig(path, line, str(error).partition(" (at ")[0]) from None
    lines = _lines(text)
    everywhere = dict(commands(context.find_root().command))
    own = next(words for words, command in everywhere.items() if command is context.command)
    found: dict[str, tuple[Any, int]] = {}
    for depth in range(len(own) + 1):
        table: Any = document
        for word in own[:depth]:
            table = table.get(word, {})
            if not isinstance(table, dict):
                raise BadConfig(path, lines.get((word,), 1), f"{word} is a command; its options stand in [{word}]")
        found |= {
            name: (value, lines.get((*own[:depth], name), 1))
            for name, value in table.items()
            if not isinstance(value, dict)
        }
    _check_keys(path, document, (), lines, everywhere)
    return found


def _check_keys(
    path: Path,
    table: Mapping[str, Any],
    place: tuple[str, ...],
    lines: Mapping[tuple[str, ...], int],
    everywhere: Mapping[tuple[str, ...], Any],
) -> None:
    below = [command for words, command in everywhere.items() if words[: len(place)] == place]
    options = {name for command in below for name in settings_of(command)}
    tables = {words[len(place)] for words in everywhere if words[: len(place)] == place and len(words) > len(place)}
    for name, value in table.items():
        line = lines.get((*place, name), 1)
        if isinstance(value, dict):
            if name not in tables:
                raise BadConfig(path, line, f"unknown table {name}{_meant(name, tables)}")
            _check_keys(path, value, (*place, name), lines, everywhere)
        elif name not in options:
            where = f" of {' '.join(place)}" if place else ""
            raise BadConfig(path, line, f"unknown key {name}{where}{_meant(name, options)}")


def _text(path: Path) -> str:
    try:
        if not path.exists():
            raise NoConfig(path, "does not exist")
        if path.stat().st_size > MAX_BYTES:
            raise NoConfig(path, f"has {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise NoConfig(path, f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise NoConfig(path, f"is not UTF-8 at byte {error.start}") from error


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """(table, ..., key) -> its line. TOML's parser does not tell; a plain look at line beginnings does."""
    found: dict[tuple[str, ...], int] = {}
    place: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            place = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            for depth in range(len(place)):
                found.setdefault(place[: depth + 1], number)
        elif key := re.match(r"\s*([\w\"'. -]+?)\s*=", line):
            parts = tuple(part.strip().strip("\"'") for part in key[1].split("."))
            found.setdefault((*place, *parts), number)
            found.setdefault((*place, parts[0]), number)
    return found


def _from_toml(path: Path, line: int, name: str, value: Any, setting: Setting) -> Any:
    """A value of the file as the option takes it; paths from the file's folder. Raises BadConfig."""
    try:
        if setting.switch:
            if not isinstance(value, bool):
                raise ValueError("true or false is expected")
            return value != setting.off
        values = value if isinstance(value, list) and setting.multiple else [value]
        made = [_typed(_from_here(path.parent, name, one, setting), setting) for one in values]
    except ValueError as error:
        raise BadConfig(path, line, f"{name} = {_toml(value)}: {error}") from None
    return made if setting.multiple else made[0]


def _typed(value: Any, setting: Setting) -> Any:
    """One value of the file, of the type that the option has; a number may stand for its text. Raises ValueError."""
    kind = setting.kind
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{EXPECTED[kind]} is expected")
    if kind is int and not isinstance(value, int):
        raise ValueError(f"{EXPECTED[int]} is expected")
    if kind is float and isinstance(value, str):
        raise ValueError(f"{EXPECTED[float]} is expected")
    if kind in (Path, Literal) and not isinstance(value, str):
        raise ValueError(f"{EXPECTED[kind]} is expected")
    return _checked(str(value) if kind is str else value, setting)


def _from_text(name: str, text: str, setting: Setting) -> Any:
    """A value of the environment as the option takes it. Raises BadVariable."""
    try:
        if setting.switch:
            if text.lower() not in BOOLEANS:
                raise ValueError("1, 0, true or false is expected")
            return BOOLEANS[text.lower()] != setting.off
        made = [_checked(_number(one, setting.kind), setting) for one in (text.split() if setting.multiple else [text])]
    except ValueError as error:
        raise BadVariable(variable_of(name), text, error) from None
    return made if setting.multiple else made[0]


def _number(text: str, kind: type) -> Any:
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{EXPECTED[kind]} is expected") from None


def _checked(value: Any, setting: Setting) -> Any:
    if setting.words and value not in setting.words:
        raise ValueError(f"one of {', '.join(setting.words)} is expected")
    return value


def _from_here(folder: Path, name: str, value: Any, setting: Setting) -> Any:
    """A path of the file, told from the file's folder."""
    if not isinstance(value, str):
        return value
    if setting.kind is Path:
        return str(folder / value)
    if name in MAYBE_FILES:
        head, equals, tail = value.rpartition("=")
        if tail and (folder / tail).exists():
            return f"{head}{equals}{folder / tail}"
    return value


def _meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, sorted(known), 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def resolved(context: typer.Context) -> str:
    """The options of a command as TOML, each with who said it: what ``--print-config`` prints."""
    own = next(w for w, command in commands(context.find_root().command) if command is context.command)
    lines = [f"[{'.'.join(own)}]"]
    seen = set()
    for name, setting in settings_of(context.command).items():
        key = setting.parameter
        # An option with two names, as --summary and --no-summary, is one.
        if key in seen:
            continue
        seen.add(key)
        value, origin = context.params.get(key), origin_of(context, key)
        if setting.switch and setting.off:
            value = not value
        if value is None or value == []:
            lines.append(f"# {name} is not set")
        else:
            lines.append(f"{name} = {_toml(value)}  # {origin}")
    return "\n".join(lines) + "\n"


def origin_of(context: typer.Context, parameter: str) -> str:
    """Who set an option: "command line", "environment", "config" or "default"."""
    source = context.get_parameter_source(parameter)
    if source is not None and source.name == "COMMANDLINE":
        return "command line"
    return str(context.meta.get(ORIGINS, {}).get(parameter, "default"))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False)
