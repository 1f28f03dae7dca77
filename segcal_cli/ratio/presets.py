"""Presets: well-known ratios under well-known label conventions.

The same structure has another number in every data set: necrosis is 1 in BraTS, and 2 in the Decathlon and in nnU-Net's
conversion of BraTS 2021. So a preset names its convention, is refused where the names in the class table contradict it,
and what it stands for is always said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segcal_cli.core.errors import UsageError
from segcal_cli.core.labels import LabelSpace


class UnknownPreset(UsageError):
    """A preset that does not exist."""

    template = "--preset {0} is not known; possible are {1}"


class OtherConvention(UsageError):
    """A class table whose names contradict the preset's convention."""

    template = (
        "--preset {0} takes label {1} for {2} ({3}), but the class table calls it {4}; give --numerator and "
        "--denominator"
    )


@dataclass(frozen=True, slots=True)
class Convention:
    """A data set's labels. values: label value -> its structure."""

    name: str
    values: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Preset:
    """numerator, denominator: lists of label values."""

    convention: Convention
    numerator: tuple[int, ...]
    denominator: tuple[int, ...]
    title: str

    def words(self) -> str:
        """What it stands for, in one line."""
        return f"{self.title} under the labels of {self.convention.name}: " + ", ".join(
            f"{value} {structure}" for value, structure in self.convention.values.items()
        )


MARKS: Mapping[str, tuple[str, ...]] = {
    "necrosis": ("necro", "ncr", "non-enhancing", "non_enhancing", "nonenhancing"),
    "oedema": ("edema", "oedema"),
    "enhancing tumour": ("enhanc",),
    "kidney": ("kidney",),
    "tumour": ("tumor", "tumour"),
    "cyst": ("cyst",),
}
"""Parts of class names that mean a structure, the first structure that fits counts: ``non-enhancing`` is no
``enhancing tumour``."""

BRATS = Convention("BraTS 2023", {1: "necrosis", 2: "oedema", 3: "enhancing tumour"})
BRATS_4 = Convention("BraTS up to 2022", {1: "necrosis", 2: "oedema", 4: "enhancing tumour"})
BRATS_NNUNET = Convention(
    "nnU-Net's conversion of BraTS 2021 and the Decathlon", {1: "oedema", 2: "necrosis", 3: "enhancing tumour"}
)
KITS = Convention("KiTS", {1: "kidney", 2: "tumour", 3: "cyst"})

NTR, CTR = "necrosis-to-tumour ratio", "core-to-tumour ratio"

PRESETS: Mapping[str, Preset] = {
    "ntr-brats2023": Preset(BRATS, (1,), (1, 2, 3), NTR),
    "ctr-brats2023": Preset(BRATS, (1, 3), (1, 2, 3), CTR),
    "ntr-brats2021": Preset(BRATS_4, (1,), (1, 2, 4), NTR),
    "ctr-brats2021": Preset(BRATS_4, (1, 4), (1, 2, 4), CTR),
    "ntr-brats-nnunet": Preset(BRATS_NNUNET, (2,), (1, 2, 3), NTR),
    "ctr-brats-nnunet": Preset(BRATS_NNUNET, (2, 3), (1, 2, 3), CTR),
    "tumour-kidney-kits": Preset(KITS, (2,), (1, 2, 3), "tumour-to-kidney ratio"),
}


def preset_of(name: str, space: LabelSpace) -> Preset:
    """The preset, after a look at the class names. Raises UnknownPreset, OtherConvention."""
    if name not in PRESETS:
        raise UnknownPreset(name, ", ".join(PRESETS))
    preset = PRESETS[name]
    for channel in space.channels:
        if len(channel.values) == 1:
            (value,) = channel.values
            meant = _structure(channel.name)
            supposed = preset.convention.values.get(value)
            if meant is not None and meant in preset.convention.values.values() and meant != supposed:
                raise OtherConvention(name, value, supposed or "nothing", preset.convention.name, channel.name)
    return preset


def _structure(name: str) -> str | None:
    lowered = name.lower()
    return next((structure for structure, marks in MARKS.items() if any(mark in lowered for mark in marks)), None)
