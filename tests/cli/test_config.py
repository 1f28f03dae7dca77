"""Flags beat the environment, which beats the file, which beats the default; what is wrong in them is said by line."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from tests.cli.builders_reading import Ran, Study, nnunet_study, segcal
from tests.cli.builders_runs import record_of
from tests.cli.invoking import invoke


def run(*arguments: object, **environment: str) -> Ran:
    result = invoke(*arguments, environment=environment)
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Study:
    study = nnunet_study(tmp_path_factory.mktemp("study"), ("a", "b"))
    assert segcal("calibrate", "fit", *study.both, "-o", study.root / "t.npz", "--no-summary").code == 0
    return study


@pytest.fixture
def command(fitted, tmp_path):
    return ["calibrate", "apply", fitted.root / "t.npz", fitted.predictions, "-o", tmp_path / "out"]


def written(folder: Path, text: str, name: str = "options.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def resolved(*arguments: object, **environment: str) -> dict:
    """The options that --print-config prints, flat."""
    ran = run(*arguments, "--print-config", **environment)
    assert ran.code == 0, ran.err
    document = tomllib.loads(ran.out)
    while len(document) == 1 and isinstance(next(iter(document.values())), dict):
        document = next(iter(document.values()))
    return document


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(command, tmp_path):
    config = ["--config", written(tmp_path, "jobs = 2\n")]
    assert resolved(*command)["jobs"] == 1
    assert resolved(*command, *config)["jobs"] == 2
    assert resolved(*command, *config, SEGCAL_JOBS="3")["jobs"] == 3
    assert resolved(*command, *config, "-j", 4, SEGCAL_JOBS="3")["jobs"] == 4


def test_a_table_of_the_command_beats_that_of_its_family_which_beats_the_top(command, tmp_path):
    top, family, own = (
        "dtype = 'uint16'\n",
        "[calibrate]\ndtype = 'float16'\n",
        "[calibrate.apply]\ndtype = 'float32'\n",
    )
    for text, expected in ((top, "uint16"), (top + family, "float16"), (top + family + own, "float32")):
        assert resolved(*command, "--config", written(tmp_path, text))["dtype"] == expected


def test_tables_of_other_commands_are_passed_over(command, tmp_path):
    config = written(tmp_path, "jobs = 2\n[evaluate]\njobs = 3\n[conformal-sets]\nalpha = 0.2\n")
    assert resolved(*command, "--config", config)["jobs"] == 2


def test_the_file_may_be_named_by_the_environment(command, tmp_path):
    assert resolved(*command, SEGCAL_CONFIG=str(written(tmp_path, "jobs = 2\n")))["jobs"] == 2


def test_nothing_is_looked_for_in_the_current_folder(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("segcal.toml", ".segcal.toml", "pyproject.toml"):
        written(tmp_path, "jobs = 2\n[tool.segcal]\njobs = 2\n", name)
    assert resolved(*command)["jobs"] == 1


def test_printed_options_say_who_set_them(command, tmp_path):
    config = written(tmp_path, "jobs = 2\n")
    ran = run(*command, "--dtype", "float32", "--config", config, "--print-config", SEGCAL_MIN_AGE="1.5")
    lines = ran.out.splitlines()
    assert lines[0] == "[calibrate.apply]"
    for line in (
        "jobs = 2  # config",
        'dtype = "float32"  # command line',
        "min-age = 1.5  # environment",
        "verify = false  # default",
        "# values is not set",
    ):
        assert line in lines
    assert ran.err == ""


def test_printed_options_are_a_file_that_gives_the_same_options(command, tmp_path):
    first = run(*command, "--dtype", "uint16", "--no-prove", "-vv", "--print-config").out
    again = run(*command[:4], "--config", written(tmp_path, first), "--print-config").out
    plain = [[line.partition("  # ")[0] for line in text.splitlines()] for text in (first, again)]
    assert plain[0] == plain[1]


def test_printing_reads_and_writes_nothing(tmp_path):
    ran = run("convert", tmp_path / "none", "-o", tmp_path / "out", "--print-config")
    assert (ran.code, list(tmp_path.iterdir())) == (0, [])


def test_paths_of_the_file_are_told_from_its_folder(fitted, tmp_path, monkeypatch):
    shutil.copytree(fitted.root, tmp_path / "study")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = written(tmp_path / "study", 'output = "out"\nlog-file = "log.txt"\n')
    ran = run("convert", tmp_path / "study" / "predictions", "--config", config)
    assert ran.code == 0
    assert (tmp_path / "study" / "out" / "a_probseg.nii.gz").is_file()
    assert (tmp_path / "study" / "log.txt").is_file()


def test_a_table_of_groups_is_told_from_the_folder_and_an_expression_is_left(command, tmp_path):
    written(tmp_path, "case,group\na,1\nb,2\n", "groups.csv")
    groups = written(tmp_path, 'groups = "groups.csv"\n')
    assert resolved(*command, "--config", groups)["groups"] == str(tmp_path / "groups.csv")
    expression = written(tmp_path, 'groups = "(.)"\n')
    assert resolved(*command, "--config", expression)["groups"] == "(.)"


def test_options_that_may_be_given_often_are_lists_or_one_text(fitted, tmp_path):
    command = ["conformal-sets", "fit", *fitted.both, "-o", tmp_path / "s.npz"]
    for text in ('target = ["edema", "necrosis"]\n', 'target = "edema"\n'):
        found = resolved(*command, "--config", written(tmp_path, text))["target"]
        assert found == (["edema", "necrosis"] if "[" in text else ["edema"])


def test_an_option_that_is_on_by_default_is_turned_off_by_its_flag(fitted, tmp_path):
    command = ["calibrate", "fit", *fitted.both, "-o", tmp_path / "x.npz"]
    for text in ("no-summary = true\n", "summary = false\n"):
        assert resolved(*command, "--config", written(tmp_path, text))["summary"] is False
    assert resolved(*command, SEGCAL_NO_PROVE="1")["no-prove"] is True
    assert resolved(*command, SEGCAL_SUMMARY="false")["summary"] is False


def test_quiet_and_json_by_the_environment(command):
    assert run(*command, SEGCAL_QUIET="1").err == ""
    assert run(*command, "--overwrite", SEGCAL_JSON="true").document["exit_code"] == 0


def test_the_record_says_who_set_each_option(command, tmp_path):
    config = written(tmp_path, "jobs = 1\n")
    run(*command, "--split-classes", "--config", config, SEGCAL_MIN_AGE="0")
    options = record_of(tmp_path / "out")["options"]
    assert options["jobs"] == {"value": 1, "from": "config"}
    assert options["split-classes"] == {"value": True, "from": "command line"}
    assert options["min-age"] == {"value": 0.0, "from": "environment"}
    assert options["dtype"] == {"value": "float32", "from": "default"}
    assert options["values"] == {"value": "probabilities", "from": "format"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("jobs = 1\non_failur = 'stop'\n", "2: unknown key on_failur; did you mean on-failure?"),
        ("jobs = 1\nzzz = 3\n", "2: unknown key zzz"),
        ("[calibrate]\nalpha = 0.1\n", "2: unknown key alpha of calibrate"),
        ("[calibrat]\njobs = 1\n", "1: unknown table calibrat; did you mean calibrate?"),
        ("[calibrate.aply]\njobs = 1\n", "1: unknown table aply; did you mean apply?"),
        ("calibrate = 1\n", "1: calibrate is a command; its options stand in [calibrate]"),
        ("jobs = 1\njobs = 2\n", "2: Cannot overwrite a value"),
        ("\n\njobs = \n", "3: Invalid value"),
        ("[calibrate\n", "1: Expected ']' at the end of a table declaration"),
        ('jobs = "4"\n', '1: jobs = "4": a whole number is expected'),
        ("jobs = 1.5\n", "1: jobs = 1.5: a whole number is expected"),
        ("jobs = true\n", "1: jobs = true: a whole number is expected"),
        ('min-age = "old"\n', '1: min-age = "old": a number is expected'),
        ("[calibrate]\nquiet = 1\n", "2: quiet = 1: true or false is expected"),
        ('\nvalues = "logit"\n', '2: values = "logit": one of logits, probabilities is expected'),
        ("values = 3\n", "1: values = 3: a word is expected"),
        ("cases = 3\n", "1: cases = 3: a path is expected"),
        ("jobs = [1, 2]\n", "1: jobs = [1, 2]: a whole number is expected"),
        ("config = 'x'\n", "1: unknown key config; did you mean confidence?"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_line(command, tmp_path, text, what):
    path = written(tmp_path, text)
    ran = run(*command, "--config", path)
    assert ran.code == 2
    assert ran.err == f"segcal: {path}:{what} (exit 2)\n"
    assert (ran.out, (tmp_path / "out").exists()) == ("", False)


def test_a_file_that_is_not_there_or_no_text(command, tmp_path):
    path = tmp_path / "none.toml"
    assert run(*command, "--config", path).closing == f"segcal: --config: {path} does not exist (exit 2)"
    path.write_bytes(b"jobs = 1 # \xff\n")
    assert run(*command, "--config", path).closing == f"segcal: --config: {path} is not UTF-8 at byte 11 (exit 2)"
    ran = run(*command, "--config", tmp_path)
    assert ran.closing == f"segcal: --config: {tmp_path} cannot be read: is a directory (exit 2)"


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("SEGCAL_JOBS", "four", "a whole number is expected"),
        ("SEGCAL_QUIET", "yes", "1, 0, true or false is expected"),
        ("SEGCAL_VALUES", "logit", "one of logits, probabilities is expected"),
        ("SEGCAL_MIN_AGE", "old", "a number is expected"),
    ],
)
def test_what_is_wrong_in_the_environment_is_said_with_its_name(command, variable, value, what):
    ran = run(*command, **{variable: value})
    assert (ran.code, ran.err) == (2, f"segcal: {variable}={value}: {what} (exit 2)\n")


def test_a_variable_that_sets_nothing_is_a_warning(command):
    ran = run(*command, SEGCAL_JOB="4", SEGCAL_QQQQ="1")
    assert ran.code == 0
    lines = ran.err.splitlines()
    assert "warning: SEGCAL_JOB is not used: no option is set by it; did you mean SEGCAL_JOBS?" in lines
    assert "warning: SEGCAL_QQQQ is not used: no option is set by it" in lines


def test_a_variable_of_another_command_is_no_warning(command):
    assert "SEGCAL_ALPHA" not in run(*command, SEGCAL_ALPHA="0.1").err


@pytest.mark.parametrize("name", ["OUTPUT", "CASES", "CALIBRATOR", "MEMBER", "CLASSES"])
def test_inputs_and_outputs_are_not_taken_from_the_environment(command, tmp_path, name):
    ran = run(*command, **{f"SEGCAL_{name}": str(tmp_path / "elsewhere")})
    assert ran.code == 0
    assert f"warning: SEGCAL_{name} is not used: no option is set by it" in ran.err
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("quoted", ["'min-age'", '"min-age"', " min-age "])
def test_keys_may_be_quoted(command, tmp_path, quoted):
    config = written(tmp_path, f"# a comment\n{quoted} = 'x'\n")
    assert run(*command, "--config", config).err.startswith(f"segcal: {config}:2: ")
