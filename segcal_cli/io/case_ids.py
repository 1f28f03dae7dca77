"""Case ids: the name that a prediction, its label and every output of a case share.

An id is a file name without its suffix, and without a tail such as ``_pred`` if every file of the folder has it. Ids
become names of output files, so they must be usable as such on every file system, and two ids that some file system
would take for one (``Case1`` and ``case1``; a composed and a decomposed umlaut) cannot stand side by side. Cases are
always listed in the order of the UTF-8 bytes of their ids, which depends on no locale.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from segcal_cli.core.errors import PairingError

TAILS = ("_trans", "_seg", "_pred", "_prob", "_probseg", "_dseg", "-seg")
"""What tools append to a case's name: MONAI ``_trans``, BIDS ``_probseg`` and ``_dseg``, the rest by custom."""

CALIBRATED = re.compile(r".+?((_label-[^\W_]+)?_desc-calibrated_probseg)", re.DOTALL)
"""What segcal itself appends to the case of calibrated probabilities."""

MAX_ID_BYTES = 180
"""File systems allow 255 bytes a name; the rest is for what outputs and temporary files add to the id."""

SHOWN = 3
"""So many names stand in a message that gives examples."""

FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories that no id holds: control characters, bytes that are not UTF-8, line and paragraph separators."""


class BadCaseId(PairingError):
    """An id that cannot be part of a file name. Arguments: where it stands (``csv:line`` or a path), the id."""

    template = "{0}: case id {1!r} cannot be a file name"


def byte_order(case: str) -> bytes:
    """Sort key of a case id: its UTF-8 bytes."""
    return case.encode("utf-8", "surrogateescape")


def fits_file_name(case: str) -> bool:
    """Whether an id can be part of a file name: no separator, no control character, not too long, a plain beginning."""
    return (
        (case[:1].isalnum() or case[:1] == "_")
        and "/" not in case
        and "\\" not in case
        and not any(unicodedata.category(character) in FORBIDDEN for character in case)
        and len(byte_order(case)) <= MAX_ID_BYTES
    )


def common_tail(stems: Iterable[str]) -> str:
    """The tail that all stems end in, or "". A stem that is nothing but the tail keeps it, and so do all others."""
    stems = list(stems)
    own = {found[1] if (found := CALIBRATED.fullmatch(stem)) else "" for stem in stems}
    if len(own) == 1 and own != {""}:
        return own.pop()
    for tail in TAILS:
        if stems and all(stem.endswith(tail) and len(stem) > len(tail) for stem in stems):
            return tail
    return ""


def confusable(case: str) -> str:
    """What some file systems take an id for: ids with the same result cannot stand side by side."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", case).casefold())


def examples(names: Sequence[str], limit: int = SHOWN) -> str:
    """The first few names for a message: ``a, b, c, ..``."""
    return ", ".join([*names[:limit], *([".."] if len(names) > limit else [])])
