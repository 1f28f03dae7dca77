"""The one tree of errors.

An error says what is wrong, in which file, with which values, and what to do. Its arguments stay in ``args``, because
errors travel between processes by pickle and are rebuilt as ``type(*args)``; the sentence is the class's ``template``,
filled in when somebody reads it. The families below decide the exit code (``cli/exits.py`` holds that map); a module
that refuses something derives a class of its own from the family, next to the code that raises it.
"""

from __future__ import annotations

import re
from numbers import Integral
from pathlib import PurePath
from typing import ClassVar

from segcal_cli.core.names import escaped

SPELLED = ("ntr",)
"""Beginnings that are read letter by letter, and sound like a vowel."""


class SegcalError(Exception):
    """Base of everything that segcal raises on purpose. ``template`` is a format string over the positional
    arguments. case: the id of the case in which it came up, set by whoever works on cases; it travels with the error.
    """

    template: ClassVar[str] = "{0}"
    case: str = ""

    def __str__(self) -> str:
        return self.template.format(*(_on_one_line(arg) for arg in self.args))


class UsageError(SegcalError):
    """The command line does not make sense; nothing was read (exit 2)."""


class NothingToDo(SegcalError):
    """All is well, and there is nothing that this run should do (exit 0)."""


class NoCaseError(SegcalError):
    """There is not one case to work on (exit 3)."""


class InputError(SegcalError):
    """An input cannot be used, or an output cannot be written (exit 4)."""


class FormatError(InputError):
    """A file is broken, or not in a form that segcal reads."""


class GeometryError(InputError):
    """Two grids do not fit, or a grid is not usable."""


class VoxelError(InputError):
    """The numbers in a volume cannot be what they are said to be."""


class LabelError(InputError):
    """A label volume and the class table do not fit."""


class PairingError(InputError):
    """Files cannot be paired into cases."""


class ProofError(InputError):
    """What was read does not reproduce the segmentation beside it."""


class FitError(InputError):
    """The cases are readable, but nothing sound can be fitted on them."""


class OverlapError(InputError):
    """A case was used to fit the artifact that is now measured, or built upon."""


class WriteError(InputError):
    """An output place cannot be used."""

    template = "cannot write {0}: {1}"


class Unfinished(WriteError):
    """Cases are done, but what is written of all of them together could not be (exit 8)."""


class ArtifactError(SegcalError):
    """An artifact is missing, damaged, of another kind, or does not fit the predictions (exit 5)."""


class CaseErrors(InputError):
    """Several inputs are unusable: one error per problem, in ``args``, each printed on a line of its own."""

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.args)


class _Count(int):
    """A whole number that templates may ask for with its noun: "{0:voxel is|voxels are}"."""

    def __format__(self, spec: str) -> str:
        one, mark, many = spec.partition("|")
        return count_text(self, one, many) if mark else super().__format__(spec)


class _Noun(str):
    """Text that templates may ask for with its article: "{0:an}"."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return with_article(self) if spec == "an" else super().__format__(spec)


def _on_one_line(arg: object) -> object:
    """A path with its control characters escaped: a line break in a name begins no line of a message. A whole number
    as a count, text as a noun."""
    if type(arg) is str:
        return _Noun(arg)
    if isinstance(arg, Integral) and not isinstance(arg, bool):
        return _Count(arg)
    return escaped(str(arg)) if isinstance(arg, PurePath) else arg


def first_line(error: BaseException) -> str:
    """The error's message on one line, for tables and records."""
    return " ".join(str(error).split()) or type(error).__name__


def count_text(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 case", "2 cases". many: where it is not the noun and an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def with_article(noun: str) -> str:
    """A noun behind "a" or "an"."""
    return f"{'an' if noun.startswith((*'aeiou', *SPELLED)) else 'a'} {noun}"


def with_case(case: str, text: str) -> str:
    """The text, behind the id of its case unless that stands in it: a file need not be named after its case."""
    # As a word, so that case 1 is not found in 1.5 mm.
    stands_in_it = re.search(rf"(?<![^\W_]){re.escape(case)}(?![^\W_])", text)
    return text if not case or stands_in_it else f"{case}: {text}"
