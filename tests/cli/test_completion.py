"""Completion in a shell, by the shell: what ``segcal --install-completion`` puts into it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """A PATH on which ``segcal`` is this one, under its own name."""
    bin = tmp_path_factory.mktemp("bin")
    program = "import sys; sys.argv[0] = 'segcal'; from segcal_cli.cli.entry import main; main()"
    (bin / "segcal").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{program}" "$@"\n')
    (bin / "segcal").chmod(0o755)
    return {**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("segcal c", ["calibrate", "cluster", "conformal-sets", "convert"]),
        ("segcal calibrate ", ["fit", "apply", "compare"]),
        ("segcal evaluate --on-f", ["--on-failure"]),
        ("segcal calibrate apply --on-failure c", ["continue"]),
    ],
)
def test_bash_completes_commands_options_and_words(line, words, environment):
    typed = line.split(" ")
    script = (
        'eval "$(_SEGCAL_COMPLETE=source_bash segcal)"\n'
        f"COMP_WORDS=({' '.join(shlex.quote(word) for word in typed)}); COMP_CWORD={len(typed) - 1}\n"
        '_segcal_completion segcal; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (ran.stdout.split(), ran.stderr) == (words, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "pwsh"])
def test_there_is_a_script_for_each_shell(shell, environment):
    ran = subprocess.run(
        ["segcal"],
        env={**environment, "_SEGCAL_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "_SEGCAL_COMPLETE" in ran.stdout
