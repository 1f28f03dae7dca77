"""The files by which runs on one output place know of each other: record, journal and lock.

They lie in the output folder; for a command that writes one table they lie beside it, behind the table's name, so that
several tables may share a folder. A shard is a run of its own beside others, with files of its own.
"""

from __future__ import annotations

from pathlib import Path

from segcal_cli.core.frozen import dataclass

RECORD, JOURNAL, LOCK = "segcal-run", "segcal-journal", "segcal"
"""Stems of the three names."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``number`` (from 1) of ``count``."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"shard-{self.number:03d}-of-{self.count:03d}"


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Names for one run. table: the one file that the run writes, or "" where it fills the folder."""

    folder: Path
    table: str = ""
    shard: Shard | None = None

    @property
    def target(self) -> Path:
        """What the run was asked to write."""
        return self.folder / self.table if self.table else self.folder

    @property
    def record(self) -> Path:
        """``segcal-run.json``, ``segcal-run.shard-003-of-040.json``, ``TABLE.csv.segcal-run.json``."""
        return self.folder / f"{self._table}{RECORD}{self._shard}.json"

    @property
    def part(self) -> Path:
        """``.segcal-run.shard-003-of-040.npz``: what merging needs besides the record."""
        return self.folder / f".{self._table}{RECORD}{self._shard}.npz"

    @property
    def journal(self) -> Path:
        return self.folder / f".{self._table}{JOURNAL}{self._shard}.jsonl"

    @property
    def lock(self) -> Path:
        """``.segcal.lock``, ``.segcal.shard-003-of-040.lock``."""
        return self.folder / f".{self._table}{LOCK}{self._shard}.lock"

    @property
    def whole_lock(self) -> Path:
        """The lock of a run that is no shard."""
        return self.folder / f".{self._table}{LOCK}.lock"

    @property
    def shard_locks(self) -> tuple[Path, ...]:
        """Locks that shards have ever taken here."""
        return tuple(sorted(self.folder.glob(f".{self._table}{LOCK}.shard-*-of-*.lock")))

    @property
    def tag(self) -> str:
        """In the names of this run's temps: the lock's name, so that its holder knows whose temps they are."""
        return self.lock.name.removeprefix(".").removesuffix(".lock")

    @property
    def _table(self) -> str:
        return f"{self.table}." if self.table else ""

    @property
    def _shard(self) -> str:
        return "" if self.shard is None else f".{self.shard}"
