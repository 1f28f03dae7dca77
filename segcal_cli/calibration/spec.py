"""What a fit was asked to do: every option that changes the result, checked before anything is read."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Literal

from segcal_cli.calibration import local
from segcal_cli.calibration.auxiliary import KERNELS, Surroundings
from segcal_cli.calibration.average_error import ACE_LOSSES
from segcal_cli.calibration.canonical import kind_of
from segcal_cli.calibration.method import Aim, Family, Method
from segcal_cli.calibration.nesting import families_of
from segcal_cli.calibration.recipes import PUBLISHED, RECIPES, Recipe
from segcal_cli.calibration.registry import KIND_WORDS, METHODS, UnknownMethod, method_for, methods_for
from segcal_cli.calibration.solvers import Tally
from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Values

MOST_BINS = 1000
"""More histogram bins than this are no calibrator."""

MOST_RATE = 1.0
"""Adam's steps are as long as its rate: with longer ones no run ends anywhere near what it looks for."""

OWN_OPTIONS = (
    "histogram_bins", "binning", "odir", "voxels", "refine", "kernel", "dim", "pad", "slice_axis", "epochs", "batch",
    "learning_rate", "allow_inverted",
)  # fmt: skip
"""Options that only some methods have; another method with such an option is a mistake, not something to pass over."""

TRAINING = ("epochs", "batch", "learning_rate")
"""Options of methods that are trained, and of published recipes."""

SplitKind = Literal["out-of-fold", "held-out", "in-sample", "unknown"]
"""What the user declares about the predictions: whether their cases were held out of training."""


class BadOption(UsageError):
    """An option has a value that does not exist, or that does not fit the method."""

    template = "--{0} {1}: {2}"


class BadFlag(UsageError):
    """A flag that does not fit the method."""

    template = "--{0}: {1}"


@dataclass(frozen=True, slots=True)
class FitSpec:
    """A fit. loss: what is minimised. ace_weight: of the soft average calibration error beside the likelihood.

    weight: every voxel counts the same, or every case does. scope: one calibrator per sigmoid region, or one for all.
    nesting: whether nested regions are made to nest. folds: of the cross-validation that the summary stands on, 0 for
    an in-sample summary. summary: whether there is one. allow_inverted: fit although higher confidence goes with less
    of the class. histogram_bins, binning: of the histogram method. odir: penalty of the dirichlet method. voxels: most
    that are sampled of a case; refine: most passes over all voxels that follow. kernel, dim, pad, slice_axis: of the
    auxiliary method. optimiser: exact, or adam for the method's published recipe; epochs, batch, learning_rate: of
    training, None for what the method takes by itself. Raises BadOption.
    """

    method: str = "temperature"
    loss: str = "nll"
    ace_weight: float = 1.0
    weight: Literal["voxel", "case"] = "voxel"
    scope: Literal["per-class", "shared"] = "per-class"
    nesting: Literal["project", "none"] = "project"
    folds: int = 5
    summary: bool = True
    split_kind: SplitKind = "unknown"
    allow_inverted: bool = False
    histogram_bins: int = 20
    binning: Literal["mass", "width"] = "mass"
    odir: float = 1e-6
    voxels: int = 20_000
    refine: int = 5
    kernel: int = 5
    dim: int = 2
    pad: Literal["replicate", "zero"] = "replicate"
    slice_axis: Literal["auto", "x", "y", "z"] = "auto"
    optimiser: Literal["exact", "adam"] = "exact"
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        known: dict[str, tuple[str | int, ...]] = {
            "weight": ("voxel", "case"),
            "scope": ("per-class", "shared"),
            "nesting": ("project", "none"),
            "binning": ("mass", "width"),
            "kernel": KERNELS,
            "dim": (2, 3),
            "pad": ("replicate", "zero"),
            "slice_axis": ("auto", "x", "y", "z"),
            "optimiser": ("exact", "adam"),
            "split_kind": ("out-of-fold", "held-out", "in-sample", "unknown"),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise BadOption(
                    name.replace("_", "-"), getattr(self, name), f"it is one of {', '.join(map(str, values))}"
                )
        if self.folds < 0 or self.folds == 1:
            raise BadOption("folds", self.folds, "it is 0 (in-sample summary) or at least 2")
        if not 2 <= self.histogram_bins <= MOST_BINS:
            raise BadOption("histogram-bins", self.histogram_bins, f"it is between 2 and {MOST_BINS}")
        if not 0.0 < self.ace_weight < math.inf:
            raise BadOption("ace-weight", self.ace_weight, "it is more than 0")
        if self.ace_weight != 1.0 and self.loss != "nll+ace":
            raise BadOption("ace-weight", self.ace_weight, "it is for --loss nll+ace")
        if not 0.0 <= self.odir < math.inf:
            raise BadOption("odir", self.odir, "it is 0 or more")
        self._check_recipe()
        if self.voxels < 1:
            raise BadOption("voxels", self.voxels, "it is 1 or more")
        if self.refine < 0:
            raise BadOption("refine", self.refine, "it is 0 or more")
        for name in ("epochs", "batch"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise BadOption(name, getattr(self, name), "it is 1 or more")
        if self.learning_rate is not None and not 0.0 < self.learning_rate <= MOST_RATE:
            raise BadOption("learning-rate", self.learning_rate, f"it is more than 0, and {MOST_RATE:g} at most")
        if self.seed < 0:
            raise BadOption("seed", self.seed, "it is 0 or more")

    def _check_recipe(self) -> None:
        """Whether the method has a published recipe, and what was asked for is part of it."""
        if self.optimiser == "exact":
            return
        if self.method not in RECIPES:
            raise BadOption(
                "optimiser", "adam", f"{self.method} has no published recipe; {', '.join(RECIPES)} have one"
            )
        if self.allow_inverted:
            raise BadFlag(
                "allow-inverted", "a published recipe (--optimiser adam) may end anywhere, and is not refused"
            )
        for name, only in (
            ("loss", "nll"),
            ("weight", "voxel"),
            ("scope", "per-class"),
            ("dim", 2),
            ("refine", 5),
            ("voxels", 20_000),
        ):
            if getattr(self, name) != only:
                raise BadOption(name, getattr(self, name), "the published recipe (--optimiser adam) does not have it")

    @property
    def recipe(self) -> Recipe:
        """The published recipe with what was asked for in place of its numbers."""
        usual = PUBLISHED[self.method]
        return Recipe(self.epochs or usual.epochs, self.batch or usual.batch, self.learning_rate or usual.rate)

    @property
    def exact_passes(self) -> int:
        """Passes over all voxels that follow a sample: after a recipe one, which measures and does not step."""
        return 1 if self.optimiser == "adam" else self.refine

    def check(self, space: LabelSpace, values: Values | None = None) -> None:
        """Whether method, loss and scope fit the class table, and what predictions hold, if that is known.

        Raises UnknownMethod, BadOption, BadFlag, TooManyBranches.
        """
        record = self.record(space)
        if record.only is not None and values is not None and values != record.only:
            fitting = [name for name in methods_for(kind_of(space)) if METHODS[name].only in (None, values)]
            raise UnknownMethod(self.method, values, ", ".join(fitting))
        for name in OWN_OPTIONS:
            if self.optimiser == "adam" and name in TRAINING:
                continue
            if name == "voxels" and self.loss in ACE_LOSSES and self.family(space) == "nodes":
                continue  # sums at nodes do not tell the error of a class, so this fit has a sample too
            if name not in record.options and getattr(self, name) != type(self).__dataclass_fields__[name].default:
                owners = [method for method, other in METHODS.items() if name in other.options]
                or_adam = ", or --optimiser adam" if name in TRAINING else ""
                words = f"it is for --method {', '.join(owners)}{or_adam}"
                if getattr(self, name) is True:
                    raise BadFlag(name.replace("_", "-"), words)
                raise BadOption(name.replace("_", "-"), getattr(self, name), words)
        if self.slice_axis != "auto" and self.dim == 3:
            raise BadOption("slice-axis", self.slice_axis, "it is for --dim 2: in three dimensions there are no slices")
        if self.loss not in record.losses:
            fitting = [name for name in methods_for(kind_of(space)) if self.loss in METHODS[name].losses]
            advice = (
                f"methods that fit: {', '.join(fitting)}" if fitting else f"it is one of {', '.join(record.losses)}"
            )
            raise BadOption("loss", self.loss, f"{self.method} cannot be fitted to it; {advice}")
        if self.scope == "shared":
            if self.loss in ACE_LOSSES:
                raise BadOption("scope", self.scope, f"--loss {self.loss} is that of one class; per-class fits it")
            kind = kind_of(space)
            if kind != "sigmoid":
                raise BadOption("scope", self.scope, f"it is for sigmoid regions, and this is {KIND_WORDS[kind]}")
            if "shared" not in record.scopes:
                sharing = [name for name in methods_for(kind) if "shared" in METHODS[name].scopes]
                raise BadOption("scope", self.scope, f"methods that fit: {', '.join(sharing)}")
        if self.nesting == "project":
            families_of(space)
        elif kind_of(space) != "sigmoid":
            raise BadOption(
                "nesting", self.nesting, f"it is for sigmoid regions, and this is {KIND_WORDS[kind_of(space)]}"
            )

    @property
    def surroundings(self) -> Surroundings:
        """What a voxel of a method that looks at neighbours sees."""
        if self.method == local.METHOD.name:
            return local.surroundings(self.dim, self.slice_axis)
        return Surroundings(self.kernel, self.dim, self.pad, self.slice_axis)

    def aim(self, tally: Tally | None = None) -> Aim:
        """What the solver is after. tally: counts its steps."""
        return Aim(self.loss, self.ace_weight, self.histogram_bins, self.binning, tally)

    def record(self, space: LabelSpace) -> Method:
        """The method. Raises UnknownMethod."""
        return method_for(self.method, kind_of(space))

    def family(self, space: LabelSpace) -> Family:
        """Which statistics of a case the fit needs. Raises UnknownMethod."""
        return self.record(space).families[kind_of(space)]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the header of an artifact."""
        return asdict(self)
