"""A study as pictures see it: what is shown of it, of which cases, and the words around it.

A picture names what it rests on: bins and their closed side, what happens to empty bins and absent classes, the voxels
that count, the unit, and how many there are.
"""

from __future__ import annotations

from functools import cached_property

from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import ALL_CLASSES
from segcal_cli.metrics.measures import CaseMeasures
from segcal_cli.reporting.style import Look, Words, look
from segcal_cli.workflows.measure_tables import IN_SAMPLE_MARK, Evaluation, SourceResult


@dataclass(frozen=True)
class Scene:
    """A study and what is shown of it. shown: ids of the cases with diagrams of their own, in that order."""

    evaluation: Evaluation
    shown: tuple[str, ...]
    min_voxels: int

    @property
    def sources(self) -> list[SourceResult]:
        return self.evaluation.sources

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that ``(all)`` averages over."""
        return self.sources[0].pooled.averaged

    @property
    def classes_and_all(self) -> tuple[str, ...]:
        """The same and their mean, unless that is the same."""
        return self.classes if len(self.classes) == 1 else (*self.classes, ALL_CLASSES)

    @cached_property
    def case_ids(self) -> list[str]:
        return [case.case for case in self.sources[0].cases]

    @cached_property
    def groups(self) -> list[str]:
        return sorted(self.sources[0].groups)

    def look(self, source: SourceResult) -> Look:
        return look([one.name for one in self.sources].index(source.name))

    def counted(self, source: SourceResult, name: str) -> list[CaseMeasures]:
        """Cases whose calibration counts in this class."""
        return [case for case in source.cases if not self.skips or case.classes[name]["n_label"]]

    @property
    def skips(self) -> bool:
        """Whether single cases that do not hold a class do not count in it."""
        return self.evaluation.settings.absent == "skip"

    def by_group(self, source: SourceResult) -> list[list[CaseMeasures]]:
        """The cases of each group."""
        return [[case for case in source.cases if case.group == group] for group in self.groups]

    # Words.

    @property
    def population(self) -> str:
        """How many cases of how many patients."""
        return f"{count_text(len(self.case_ids), 'case')} of {count_text(len(self.groups), 'patient')}"

    def cases(self, n: int) -> str:
        """The unit of a picture of ``n`` single cases."""
        return f"Unit: case, n = {n}, of {count_text(len(self.groups), 'patient')}."

    def words(
        self,
        kind: str,
        name: str,
        source: SourceResult | None,
        *sentences: str,
        case: str = "",
        pooled: bool = False,
        binned: bool = True,
    ) -> Words:
        """Title and caption. sentences: what is special to the picture: its unit and n. pooled: it shows the voxels of
        all cases together; binned: what it shows depends on bins.
        """
        of = {"": "all classes", ALL_CLASSES: "mean over classes"}.get(name, name)
        parts = [of, *([] if source is None else [marked(source)]), *([case] if case else [])]
        title = f"{kind}: {', '.join(parts)}"
        marks = [one for one in self.sources if one.in_sample and (source is None or one is source)]
        dagger = [f"{IN_SAMPLE_MARK} fitted on some of these cases: in-sample."] if marks else []
        return Words(title, " ".join([*sentences, self.conventions(pooled=pooled, binned=binned), *dagger]))

    def conventions(self, *, pooled: bool, binned: bool) -> str:
        """Those that the picture rests on. Only single cases can be skipped: what is pooled holds every voxel."""
        s = self.evaluation.settings
        parts = [self.evaluation.binning, f"empty bins: {s.empty_bins}"] if binned else []
        pooled_too = "pooled like all others (skip concerns single cases)"
        parts.append(f"absent classes: {pooled_too if pooled and self.skips else s.absent}")
        parts.append("voxels of the region of interest" if self.evaluation.roi else "all voxels")
        text = "; ".join(parts)
        return f"{text[0].upper()}{text[1:]}."

    @property
    def overlap_conventions(self) -> str:
        s = self.evaluation.settings
        decision = s.decision if self.evaluation.space.exclusive else "p > 0.5"
        return f"Dice of the decision by {decision}, two empty masks: {'undefined' if s.empty_dice == 'null' else '1'}."

    @property
    def least(self) -> str:
        """When a case counts in a bin."""
        return f"A case counts in a bin where it has {count_text(max(self.min_voxels, 1), 'voxel')} or more."

    @property
    def too_few(self) -> str:
        """Why no case counts in any bin."""
        return f"no case has {count_text(max(self.min_voxels, 1), 'voxel')} in a bin (--min-voxels)"


def marked(source: SourceResult) -> str:
    """Its name, with a dagger if its calibrator has seen these cases."""
    return source.name + (IN_SAMPLE_MARK if source.in_sample else "")
