"""Artifacts: what ``fit`` learned, in one file.

An artifact is a JSON header and plain numeric arrays (on disk: ``io/artifacts.py``). It keeps sufficient statistics, so
that levels can be chosen later, and it carries no time, host or absolute path: the same input gives the same bytes.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Values

FORMAT_VERSION = 1
"""Raised whenever a reader of the previous version would misunderstand the file."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an artifact is, what it was fitted on, and what it guarantees.

    spec: every option that changes the result. case_digests: case id -> sha256 of what was read, for overlap checks.
    dropped: cases left out by ``--on-failure continue``, as {"case", "error"}. guarantee: one sentence.
    """

    kind: str
    method: str
    space: LabelSpace
    values: Values
    spec: dict[str, Any]
    case_ids: tuple[str, ...]
    group_ids: tuple[str, ...]
    case_digests: dict[str, str]
    fit_input_digest: str
    guarantee: str
    seed: int = 0
    dropped: tuple[dict[str, str], ...] = ()
    results: dict[str, Any] = field(default_factory=dict)
    segcal_version: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def n_cases(self) -> int:
        return len(self.case_ids)

    @property
    def n_groups(self) -> int:
        return len(set(self.group_ids))


@dataclass(frozen=True, slots=True)
class Artifact:
    """A header and its arrays. digest: sha256 of the file it was read from, "" before it is written."""

    header: Header
    arrays: dict[str, np.ndarray]
    digest: str = ""
