"""Templates of file names, such as ``{case}/{case}_soft.nii.gz``.

``{case}``, ``{class}`` and ``{sample}`` stand for a part of a name and ``*`` for anything; none of them crosses a
``/``. A template that names no suffix takes every suffix that segcal reads. Where the classes are known, ``{class}``
matches only their names (or the letters and digits of a name, as BIDS writes it), longest first, and ``{case}`` takes
as little as it can: ``a_whole_tumour`` is the whole tumour of a. Otherwise ``{case}`` takes as much as it can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.folders import list_folder
from segcal_cli.io.naming import entity_value
from segcal_cli.io.suffixes import KNOWN, split_suffix

FIELDS = ("case", "class", "sample")
"""What a template may hold in braces."""

TOKEN = re.compile(r"(\{[^{}]*\}|\*)")
SUFFIX = "(?i:" + "|".join(map(re.escape, KNOWN)) + ")"


class BadPattern(UsageError):
    """A template that cannot be used. Arguments: the option, the template, why."""

    template = "{0} '{1}': {2}"


@dataclass(frozen=True, slots=True)
class Match:
    """A file that a template matches. root: the folder that the template is relative to."""

    path: Path
    root: Path
    case: str
    sample: str | None = None
    class_name: str | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A template, ready to match. Raises BadPattern on one that makes no sense.

    classes: the names that ``{class}`` stands for; empty: any. option: the name under which messages speak of it.
    """

    text: str
    classes: tuple[str, ...] = ()
    option: str = "--pattern"

    def __post_init__(self) -> None:
        for field in re.findall(r"\{([^{}]*)\}", self.text):
            if field not in FIELDS:
                raise BadPattern(
                    self.option, self.text, f"{{{field}}} is unknown; use {{case}}, {{class}}, {{sample}} and *"
                )
        if "{case}" not in self.text:
            raise BadPattern(self.option, self.text, "it needs {case}")
        if any(part in ("", ".", "..") for part in self.text.split("/")):
            raise BadPattern(self.option, self.text, "it must be a path below the folder, without . or ..")

    @property
    def fields(self) -> frozenset[str]:
        """Which of FIELDS the template holds."""
        return frozenset(re.findall(r"\{([^{}]*)\}", self.text))

    @property
    def depth(self) -> int:
        """So many names a matching path has below the root."""
        return self.text.count("/") + 1

    @property
    def joins(self) -> str:
        """The folder part of the template if it holds a ``*``, which joins folders; else ""."""
        folder = self.text.rpartition("/")[0]
        return folder if "*" in folder else ""

    def expand(self, case: str, sample: str | None, class_name: str, suffix: str) -> str:
        """The relative path where a file is looked for; ``*`` stays."""
        values = {"{case}": case, "{class}": class_name, "{sample}": sample or "{sample}"}
        name = "".join(values.get(token, token) for token in TOKEN.split(self.text))
        return name if split_suffix(self.text)[1] else name + suffix

    def matches(self, root: Path) -> Iterator[Match]:
        """Files below the root that match, in the order of their names."""
        for relative in self._walk(root):
            match = self._match(root, relative)
            if match:
                yield match

    def match_file(self, path: Path) -> Match | None:
        """The match of one given file, by the last names of its path."""
        names = path.absolute().parts[-self.depth :]
        match = self._match(path.absolute().parents[self.depth - 1], "/".join(names))
        return match and replace(match, path=path)

    def strangers(self, root: Path) -> tuple[str, ...]:
        """Files that would match, were their class in the class table."""
        if not self.classes or "class" not in self.fields:
            return ()
        strict, loose = _expression(self.text, self.classes), _expression(self.text, ())
        return tuple(name for name in self._walk(root) if not strict.fullmatch(name) and loose.fullmatch(name))

    def _match(self, root: Path, relative: str) -> Match | None:
        found = _expression(self.text, self.classes).fullmatch(relative)
        if found is None:
            return None
        part = found.groupdict()
        written = part.get("class")
        class_name = None if written is None else _forms(self.classes).get(written, written)
        return Match(root / relative, root, part["case"], part.get("sample"), class_name)

    def _walk(self, root: Path) -> Iterator[str]:
        """Relative paths at the template's depth, below folders that can match; dot-files are never seen."""
        *folders, _ = self.text.split("/")
        wanted = [re.compile(re.sub(r"\\\{[a-z]+\\\}|\\\*", "[^/]*", re.escape(part))) for part in folders]

        def below(prefix: str, level: int) -> Iterator[str]:
            listing = list_folder(root / prefix)
            if level == len(wanted):
                yield from (prefix + name for name in listing.files)
            else:
                for name in listing.folders:
                    if wanted[level].fullmatch(name):
                        yield from below(f"{prefix}{name}/", level + 1)

        return below("", 0)


@lru_cache
def _expression(text: str, classes: tuple[str, ...]) -> re.Pattern[str]:
    """What a relative path must match, with the fields as named groups."""
    known_class = "|".join(re.escape(form) for form in sorted(_forms(classes), key=lambda form: (-len(form), form)))
    first = {
        "{case}": "(?P<case>[^/]+?)" if classes and "{class}" in text else "(?P<case>[^/]+)",
        "{class}": f"(?P<class>{known_class or '[^/]+'})",
        "{sample}": "(?P<sample>[^/]+)",
    }
    parts, seen = [], set()
    for token in TOKEN.split(text):
        if token in first:
            parts.append(f"(?P={token[1:-1]})" if token in seen else first[token])
            seen.add(token)
        else:
            parts.append("[^/]*" if token == "*" else re.escape(token))
    return re.compile("".join(parts) + ("" if split_suffix(text)[1] else SUFFIX))


@lru_cache
def _forms(classes: tuple[str, ...]) -> dict[str, str]:
    """Class names by the ways in which they are written; the full name counts before any short form."""
    short = {entity_value(name): name for name in classes}
    return {form: name for form, name in short.items() if form} | {name: name for name in classes}
