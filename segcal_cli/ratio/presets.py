"""Presets: well-known ratios under well-known label conventions.

The same structure has another number in every data set: necrosis is 1 in BraTS, and 2 in the Decathlon and in nnU-Net's
conversion of BraTS 2021. So a preset names its convention, is refused where the names in the class table contradict it,
and what it stands for is always said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import Channel, LabelSpace


class UnknownPreset(UsageError):
    """A preset that does not exist."""

    template = "--preset {0} is not known; possible are {1}"


class OtherConvention(UsageError):
    """A class table whose names contradict the preset's convention."""

    template = (
        "--preset {0} takes label {1} for {2} ({3}), but the class table calls it {4}; give --numerator and "
        "--denominator"
    )


@dataclass(frozen=True, slots=True, init=False)
class Name:
    """What a class name means. marks: parts of names, without blanks and punctuation, or a whole name after ``=``.

    meanings: sets of structures, any of which the name may stand for.
    """

    marks: tuple[str, ...]
    meanings: tuple[frozenset[str], ...]

    def __init__(self, marks: tuple[str, ...], *meanings: set[str]) -> None:
        object.__setattr__(self, "marks", marks)
        object.__setattr__(self, "meanings", tuple(map(frozenset, meanings)))

    def fits(self, name: str) -> bool:
        """name: as a class table has it."""
        bare = re.sub(r"[^a-z0-9]", "", name.lower())
        return any(bare == mark[1:] if mark.startswith("=") else mark in bare for mark in self.marks)


@dataclass(frozen=True, slots=True)
class Convention:
    """A data set's labels. values: label value -> its structure. names: what names of classes mean here."""

    name: str
    values: Mapping[int, str]
    names: tuple[Name, ...]

    def structures(self, values: frozenset[int]) -> frozenset[str]:
        """What stands under some label values."""
        return frozenset(self.values[value] for value in values if value in self.values)


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


NECROSIS, OEDEMA, ENHANCING = "necrosis", "oedema", "enhancing tumour"
KIDNEY, TUMOUR, CYST = "kidney", "tumour", "cyst"

TUMOUR_NAMES: tuple[Name, ...] = (
    Name(("necro", "=ncr", "=ncrnet", "=netc", "nonenhancingtumorcore", "nonenhancingtumourcore"), {NECROSIS}),
    Name(("edema", "oedema", "snfh", "flair", "peritumoral", "peritumoural", "=ed"), {OEDEMA}),
    Name(("nonenhanc", "=net"), {NECROSIS}),
    Name(("core", "=tc"), {NECROSIS, ENHANCING}),
    Name(("enhanc", "=et"), {ENHANCING}),
    Name(("tumor", "tumour", "glioma", "lesion", "=wt"), {NECROSIS, OEDEMA, ENHANCING}),
)
"""What names mean in sets of brain tumours, the first that fits: a necrotic core is no core, a non-enhancing part does
not enhance, an enhancing tumour is no whole tumour."""

KIDNEY_NAMES: tuple[Name, ...] = (
    Name(("cyst",), {CYST}),
    Name(("masses",), {TUMOUR, CYST}),
    Name(("tumor", "tumour"), {TUMOUR}),
    Name(("kidney", "renal"), {KIDNEY}, {KIDNEY, TUMOUR, CYST}),
)
"""In sets of kidneys: ``kidney`` may be the healthy part, or the organ with all that grows in it."""

BRATS = Convention("BraTS 2023", {1: NECROSIS, 2: OEDEMA, 3: ENHANCING}, TUMOUR_NAMES)
BRATS_4 = Convention("BraTS up to 2022", {1: NECROSIS, 2: OEDEMA, 4: ENHANCING}, TUMOUR_NAMES)
BRATS_NNUNET = Convention(
    "nnU-Net's conversion of BraTS 2021 and the Decathlon",
    {1: OEDEMA, 2: NECROSIS, 3: ENHANCING},
    TUMOUR_NAMES,
)
KITS = Convention("KiTS", {1: KIDNEY, 2: TUMOUR, 3: CYST}, KIDNEY_NAMES)

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


SAYS_NOTHING = re.compile(r"(background|class|label|channel|region|roi|structure|foreground|value)?[\s_.-]*\d*", re.I)
"""Names that contradict no convention, because they mean nothing."""


def preset_of(name: str, space: LabelSpace) -> Preset:
    """The preset, after a look at the class names. Raises UnknownPreset, OtherConvention."""
    if name not in PRESETS:
        raise UnknownPreset(name, ", ".join(PRESETS))
    preset = PRESETS[name]
    for channel in space.channels:
        _refuse_other_meaning(name, preset.convention, channel)
    return preset


def _refuse_other_meaning(preset: str, convention: Convention, channel: Channel) -> None:
    """Raise OtherConvention if a channel's name means something else than its values do here.

    A name that means nothing is taken as it comes; one that means something, but nothing of this convention, is of
    another data set, unless the convention has no such values.
    """
    supposed = convention.structures(channel.values)
    name = next((name for name in convention.names if name.fits(channel.name)), None)
    if name is not None:
        contradicted = supposed not in name.meanings
    else:
        contradicted = bool(supposed) and SAYS_NOTHING.fullmatch(channel.name) is None
    if contradicted:
        values = ",".join(map(str, sorted(channel.values)))
        meant = " + ".join(word for word in convention.values.values() if word in supposed) or "nothing"
        raise OtherConvention(preset, values, meant, convention.name, channel.name)
