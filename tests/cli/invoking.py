"""The command line as it is run in this process: put together once, since that takes longer than most commands."""

from __future__ import annotations

from collections.abc import Mapping

from click.testing import CliRunner, Result
from typer.main import get_command

from segcal_cli.cli.app import app

COMMAND = get_command(app)


def invoke(*arguments: object, environment: Mapping[str, str] | None = None) -> Result:
    """Run a command; what is raised beside an exit comes through."""
    result = CliRunner().invoke(COMMAND, [str(argument) for argument in arguments], env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
