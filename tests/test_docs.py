"""The documents say what the program does: the reference is its own help, and what the README shows exists."""

import importlib.util
import re
from pathlib import Path

import pytest
import typer

from segcal_cli.cli.app import SUMMARIES, app
from segcal_cli.core.observer import Silent
from segcal_cli.workflows import calibrate_fit, requests

ROOT = Path(__file__).parent.parent


def cli_reference():
    spec = importlib.util.spec_from_file_location("make_cli_reference", ROOT / "docs" / "make_cli_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(group=None, prefix=()):
    """Every command with its parameters' option names, as the program itself has them."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        yield (*prefix, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))


def options_of(command):
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


def test_the_reference_is_the_help_of_today():
    reference = cli_reference()
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run: make docs"


def test_the_reference_has_every_command():
    assert set(cli_reference().COMMANDS) == {(), *(name for name, _ in commands())}


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_and_every_option_has_help(name, command):
    assert command.help, name
    for parameter in command.params:
        assert getattr(parameter, "help", None) or parameter.name == "help", f"{name} {parameter.name}"


def shown_commands():
    """Every segcal command line in the documents' code blocks, continuation lines joined."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if page.name == "cli.md":
            continue
        for block in re.findall(r"```(?:bash|sh|console|make)?\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for call in re.findall(r"(?:^|[\s(])(segcal [a-z].*)", line):
                    yield page.name, call


@pytest.mark.parametrize(("page", "call"), list(shown_commands()))
def test_a_command_shown_in_the_documents_exists_with_its_options(page, call):
    known = dict(commands())
    words = call.split("#")[0].split()[1:]
    name = tuple(words[:2]) if tuple(words[:2]) in known else tuple(words[:1])
    assert name in known, f"{page}: {call}"
    flags = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert flags <= options_of(known[name]) | {"--help"}, f"{page}: {call}"


def test_the_readme_shows_commands():
    assert any(page == "README.md" for page, _ in shown_commands())


def python_examples():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            yield page.name, block


@pytest.mark.parametrize(("page", "code"), list(python_examples()))
def test_python_examples_run(page, code, tmp_path, monkeypatch):
    """In a folder with sample data, and with the temperature that the README's example fits on others of these."""
    monkeypatch.chdir(tmp_path)
    for name in ("predictions", "labels"):
        (tmp_path / f"test_{name}").symlink_to(ROOT / "sample_data" / "brain" / "test" / name)
    data = ROOT / "sample_data" / "brain" / "calibration"
    calibrate_fit.run(
        data / "predictions",
        data / "labels",
        tmp_path / "temperature.npz",
        requests.CalibrateFitOptions(summary=False),
        requests.PredictionOptions(values="logits"),
        requests.LabelOptions(),
        requests.RunOptions(),
        requests.OutputOptions(),
        Silent(),
    )
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_list_of_commands_says_how_the_help_of_each_begins(name):
    command = dict(commands())[(name,)]
    assert " ".join(command.help.partition("\n\n")[0].split()) == SUMMARIES[name]
