"""The structure holds: imports point one way, heavy packages stay where they belong, start-up imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "segcal_cli"

METHODS = {"calibration", "confidence", "kandinsky", "ratio", "metrics", "io", "execution", "reporting"}
ALLOWED = {
    "core": set(),
    **{name: {"core"} for name in METHODS},
    "calibration": {"core", "metrics"},
    "confidence": {"core", "metrics"},
    "ratio": {"core", "metrics"},
    "kandinsky": {"core", "metrics"},
    "workflows": {"core", *METHODS},
    "cli": {"core", "workflows", "execution", "reporting"},
}
"""Package -> packages that it may import, besides itself. The cli may name records of execution and reporting."""

HOMES = {
    "typer": {"cli"},
    "rich": {"cli"},
    "nibabel": {"io"},
    "PIL": {"io"},
    "tifffile": {"io"},
    "isal": {"io"},
    "matplotlib": {"reporting"},
    "dask": {"execution"},
    "distributed": {"execution"},
}
"""Third-party package -> the only packages of segcal that may import it."""

LAZY = {"scipy", "torch", "nibabel", "PIL", "tifffile", "matplotlib", "skimage", "rich", "dask", "distributed"}
"""Packages that are imported inside the functions that use them, never at the top of a module."""

TORCH_MODULE = "losses.py"
"""A loss is an nn.Module, so it cannot even be defined without torch; nothing else imports it."""


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def package_of(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imported(tree):
    """(module name, whether at the top of the module and executed at run time) of every import statement."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top and id(node) not in typing_only
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
            if node.module and node.module.count(".") == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                yield name, id(node) in top and id(node) not in typing_only


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    package = package_of(path)
    if not package:
        return
    for name, _ in imported(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "segcal_cli" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir() and parts[1] != package:
            assert parts[1] in ALLOWED[package], f"{path}: {package} must not import {parts[1]}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_party_packages_stay_home_and_heavy_ones_are_imported_where_they_are_used(path):
    for name, at_top in imported(ast.parse(path.read_text())):
        root = name.split(".")[0]
        assert package_of(path) in HOMES.get(root, {package_of(path)}), f"{path} imports {root}"
        exempt = root == "torch" and str(path.relative_to(PACKAGE)) == TORCH_MODULE
        assert exempt or not (at_top and root in LAZY), f"{path} imports {root} at the top"
        assert name != "segcal_cli.losses", f"{path} imports torch by way of the losses"


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['segcal', '--help']\nfrom segcal_cli.cli.entry import main\n" + (
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({{m.split('.')[0] for m in sys.modules}} & set({!r})), file=sys.stderr)"
    ).format(sorted(LAZY - {"rich"} | {"numpy", "isal"}))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]"
    assert "calibrate" in run.stdout


def test_evaluating_one_source_imports_no_scipy(tmp_path):
    brain = PACKAGE.parent / "sample_data" / "brain" / "test"
    code = (
        "import sys; sys.argv = ['segcal', 'evaluate', *sys.argv[1:]]\nfrom segcal_cli.cli.entry import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, 'scipy' in sys.modules, file=sys.stderr)"
    )
    words = [brain / "predictions", brain / "labels", "--values", "logits", "-q", "-o", tmp_path / "t.csv"]
    run = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    assert run.stderr.split()[-2:] == ["0", "False"]


def test_every_module_says_what_it_is_about():
    for path in modules():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_no_module_is_called_after_what_it_is_not():
    assert not {path.stem for path in modules()} & {"utils", "helpers", "common", "misc"}
