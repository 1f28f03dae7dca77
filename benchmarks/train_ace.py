"""Does training with mL1-ACE give calibrated probabilities, and what does it cost in Dice? The published experiment.

    python benchmarks/train_ace.py                                        # generated slices, one CPU, about 20 minutes
    python benchmarks/train_ace.py --quick                                # seconds; only shows that everything runs
    python benchmarks/train_ace.py --dimensions 3 --seeds 3 --device cuda # generated volumes
    python benchmarks/train_ace.py --data FOLDER --device cuda            # your own images/ and labels/

A small U-Net is trained once per loss on the same cases: Dice, Dice with mL1-ACE (equal weights, and 1 to 0.3),
cross-entropy, and cross-entropy with mL1-ACE. Each network is measured as it is and once more after temperature scaling
fitted on the validation part, since a loss that a single number fitted afterwards could replace would not be worth its
Dice. Every value is computed per test case and class, and losses are compared case by case (Wilcoxon signed-rank).

Generated data. The border of a lesion is ambiguous, as it is between two human readers: a smooth function says how deep
inside a voxel lies, its label is drawn by adding spatially correlated noise to that depth, and the image shows the
depth only, under noise and with a contrast that varies from case to case. The true probability of a voxel is therefore
known to be Phi(depth / ambiguity), intermediate in a band around the border, and no network can do better than to say
so. Regions are nested (whole lesion, core, and in 3-D an innermost part), as in BraTS; the probability of an inner one
is the product of its own and those around it.

A Markdown table goes to stdout, progress to stderr. Barfoot, Garcia Peraza Herrera, Glocker, Vercauteren 2024, "Average
Calibration Error: A Differentiable Loss for Improved Reliability in Image Segmentation", Table 2.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar
from scipy.stats import wilcoxon
from torch import Tensor, nn

from segcal_cli.losses import combine

AMBIGUITY = 7 / 160
"""Standard deviation of the depth at which a label's border lies, as a part of the image's edge: the half-width of the
uncertain band.
"""

LABEL_CORRELATION = 2.0
"""Width in voxels of the Gaussian that correlates the label noise: readers differ in patches, not in single voxels."""

MARGIN = 0.4
"""Depth of a nested region's border below its parent's, as a part of the lesion's radius."""

BINS = 20
"""Bins of every calibration error here, and of the loss."""

LOSSES = {
    "Dice": {"dice": 1.0},
    "0.5 Dice + 0.5 ACE": {"dice": 0.5, "ace": 0.5},
    "Dice : ACE = 1 : 0.3": {"dice": 1.0, "ace": 0.3},
    "CE": {"ce": 1.0},
    "0.5 CE + 0.5 ACE": {"ce": 0.5, "ace": 0.5},
}
"""What is trained, in the order of the table."""

SCALED = " + temperature"
"""Ending of the name of a row measured after temperature scaling."""

COMPARED = [
    ("0.5 Dice + 0.5 ACE", "Dice"),
    ("Dice : ACE = 1 : 0.3", "Dice"),
    ("Dice" + SCALED, "Dice"),
    ("0.5 Dice + 0.5 ACE", "Dice" + SCALED),
    ("0.5 CE + 0.5 ACE", "CE"),
    ("CE" + SCALED, "CE"),
    ("0.5 CE + 0.5 ACE", "CE" + SCALED),
]
"""Which row is compared with which."""

METRICS = ("Dice", "ACE", "ECE", "MCE")

CHECKS = 20
"""How often during a training validation Dice is measured, and the best network so far kept."""

TEMPERATURE_VOXELS = 50_000
"""Temperature scaling uses about this many evenly spaced voxels of each validation case."""

BOOTSTRAP = 2000
"""Resamples of cases behind each 95 % interval."""

FEWEST = 6
"""With fewer test cases there is no interval; no signed-rank test of fewer can reach 0.05 either."""

UNDEFINED = "undefined"
"""Printed where no test case has a value: the Dice of a class that none of them holds or was given."""

REQUIRED = {"ACE": -0.45, "MCE": -0.55}
"""The published change, Dice + ACE against Dice, that the generated data have to show at least."""

ALLOWED_DICE = 0.01
"""Largest difference in mean Dice that goes with it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One image with its label: float32 "channel (z) y x", uint8 "(z) y x"."""

    image: np.ndarray
    label: np.ndarray


@dataclass(frozen=True, slots=True)
class Study:
    """The three parts of a data set, and what is evaluated: region name -> label values, the background left out."""

    training: list[Case]
    validation: list[Case]
    test: list[Case]
    regions: Mapping[str, tuple[int, ...]]

    @property
    def classes(self) -> int:
        return 1 + max(value for values in self.regions.values() for value in values)


@dataclass(frozen=True, slots=True)
class Plan:
    """How every network is trained."""

    iterations: int
    batch: int
    patch: int
    device: torch.device
    learning_rate: float = 1e-3
    channels: tuple[int, ...] = (8, 16, 32, 64)


# ---------------------------------------------------------------------------------------------------------------- data


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> np.ndarray:
    """A Gaussian random field of mean 0 and variance 1 over the image, correlated over `width` voxels."""
    field = gaussian_filter(rng.standard_normal(shape).astype(np.float32), width, mode="wrap")
    return (field - field.mean()) / field.std()


def generate(rng: np.random.Generator, shape: tuple[int, ...], nested: int) -> Case:
    """A case with `nested` regions, labels 1 (outermost only) to nested (innermost), in two image channels."""
    size = shape[0]
    ambiguity = AMBIGUITY * size
    radius = size * rng.uniform(0.18, 0.3)
    centre = [n / 2 + rng.uniform(-0.5, 0.5) * (n - 2.4 * radius) for n in shape]
    stretch = rng.uniform(0.8, 1.25, len(shape))
    offsets = np.ogrid[tuple(slice(n) for n in shape)]
    distance = np.sqrt(sum(((x - c) * s) ** 2 for x, c, s in zip(offsets, centre, stretch, strict=True)))
    depth = radius - distance + 0.18 * radius * smooth_field(rng, shape, size / 14)

    label = np.zeros(shape, np.uint8)
    inside = np.ones(shape, bool)
    brightness = np.zeros((2, *shape), np.float32)
    for region in range(nested):
        inside &= depth + ambiguity * smooth_field(rng, shape, LABEL_CORRELATION) > 0
        label[inside] = region + 1
        ramp = 1 / (1 + np.exp(-1.7 * depth / ambiguity))
        # The whole lesion is bright in the first channel, its core in the second; the innermost part dims the first.
        brightness[region % 2] += rng.uniform(0.7, 1.6) * ramp * (1 if region < 2 else -0.5)
        depth = depth - MARGIN * radius + 0.06 * radius * smooth_field(rng, shape, size / 20)
    noise = np.stack([0.25 * smooth_field(rng, shape, size / 10) + 0.3 * rng.standard_normal(shape) for _ in range(2)])
    return Case((brightness + noise).astype(np.float32), label)


def generated_study(dimensions: int, size: int, counts: tuple[int, int, int]) -> Study:
    """A study of generated cases; the same cases for every seed of the training."""
    regions = (
        {"whole": (1, 2), "core": (2,)} if dimensions == 2 else {"whole": (1, 2, 3), "core": (2, 3), "inner": (3,)}
    )
    training, validation, test = (
        [generate(np.random.default_rng((part, index)), (size,) * dimensions, len(regions)) for index in range(count)]
        for part, count in enumerate(counts)
    )
    return Study(training, validation, test, regions)


def read_image(path: Path) -> np.ndarray:
    """A PNG as "y x" or "channel y x", a NIfTI volume as "x y z" or "channel x y z", in its stored type."""
    if path.suffix == ".png":
        from PIL import Image

        values = np.asarray(Image.open(path))
        return np.moveaxis(values, -1, 0) if values.ndim == 3 else values
    import nibabel

    values = np.asanyarray(nibabel.Nifti1Image.from_filename(path).dataobj)
    return np.moveaxis(values, -1, 0) if values.ndim == 4 else values


def folder_study(folder: Path) -> Study:
    """A study from FOLDER/images and FOLDER/labels, split 63 : 11 : 26 in a fixed random order.

    A label is NAME.png or NAME.nii.gz with values 0..K; its image has the same name, or is one file per channel,
    NAME_0000 and so on. Channels are scaled to mean 0 and deviation 1. All cases are held in memory.
    """
    images = sorted(path for path in (folder / "images").iterdir() if path.name.endswith((".png", ".nii", ".nii.gz")))
    cases = []
    for path in sorted((folder / "labels").iterdir()):
        name = re.escape(path.name.split(".")[0])
        channels = [image for image in images if re.fullmatch(rf"{name}(_\d{{4}})?\.(png|nii|nii\.gz)", image.name)]
        if not channels:
            raise SystemExit(f"{path}: no image of this name in {folder / 'images'}")
        label = read_image(path)
        image = np.concatenate([read_image(channel).reshape(-1, *label.shape) for channel in channels])
        axes = tuple(range(1, image.ndim))
        mean, deviation = image.mean(axes, keepdims=True), image.std(axes, keepdims=True)
        scaled = ((image - mean) / np.maximum(deviation, 1e-6)).astype(np.float32)
        cases.append(Case(scaled, label.astype(np.uint8)))
    if len(cases) < 8:
        raise SystemExit(f"{folder}: {len(cases)} labelled cases are too few to train, choose and test on")
    order = np.random.default_rng(0).permutation(len(cases))
    cases = [cases[index] for index in order]
    first, second = round(0.63 * len(cases)), round(0.74 * len(cases))
    classes = 1 + max(int(case.label.max()) for case in cases)
    regions = {f"label {value}": (value,) for value in range(1, classes)}
    return Study(cases[:first], cases[first:second], cases[second:], regions)


def batches(cases: list[Case], plan: Plan, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of patches at random places, each flipped at random: images, and labels as int64."""
    while True:
        chosen = [take_patch(cases[index], plan.patch, rng) for index in rng.integers(len(cases), size=plan.batch)]
        images = torch.from_numpy(np.stack([case.image for case in chosen]))
        labels = torch.from_numpy(np.stack([case.label for case in chosen]))
        yield images.to(plan.device), labels.to(plan.device).long()


def take_patch(case: Case, size: int, rng: np.random.Generator) -> Case:
    """A patch of `size` along every axis; a case that is smaller is padded with 0, the channel's mean."""
    missing = [(0, max(0, size - n)) for n in case.label.shape]
    image, label = np.pad(case.image, [(0, 0), *missing]), np.pad(case.label, missing)
    starts = [rng.integers(n - size + 1) for n in label.shape]
    steps = rng.choice((-1, 1), label.ndim)
    window = tuple(slice(start, start + size) for start in starts)
    flip = tuple(slice(None, None, step) for step in steps)
    return Case(image[(slice(None), *window)][(slice(None), *flip)], label[window][flip])


# ------------------------------------------------------------------------------------------------------------- network


class UNet(nn.Module):
    """A U-Net with instance normalisation, one convolution per level down and one up; every level, the first one too,
    halves the grid, and a transposed convolution at the end restores it.
    """

    def __init__(self, dimensions: int, inputs: int, outputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if dimensions == 2 else (nn.Conv3d, nn.InstanceNorm3d)

        def block(before: int, after: int, stride: int = 1) -> nn.Module:
            layers = conv(before, after, 3, stride, padding=1, bias=False), norm(after, affine=True), nn.LeakyReLU(0.1)
            return nn.Sequential(*layers)

        self.deepest_stride = 2 ** len(channels)
        self.down = nn.ModuleList(block(a, b, 2) for a, b in zip((inputs, *channels), channels, strict=False))
        self.bottom = block(channels[-1], channels[-1])
        self.up = nn.ModuleList(block(a + b, a) for a, b in pairwise(channels))
        self.grow = nn.Upsample(scale_factor=2)
        transposed = nn.ConvTranspose2d if dimensions == 2 else nn.ConvTranspose3d
        self.head = transposed(channels[0], outputs, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.down:
            x = level(x)
            skips.append(x)
        x = self.bottom(skips.pop())
        for level, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = level(torch.cat([skip, self.grow(x)], 1))
        return self.head(x)


def logits_of(network: UNet, case: Case, device: torch.device) -> Tensor:
    """Logits of one whole case, "class (z) y x", on the device."""
    missing = [-n % network.deepest_stride for n in case.label.shape]
    image = np.pad(case.image, [(0, 0), *((0, n) for n in missing)])
    with torch.no_grad():
        logits = network(torch.from_numpy(image).to(device)[None])[0]
    return logits[(slice(None), *(slice(n) for n in case.label.shape))]


def train(study: Study, weights: dict[str, float], plan: Plan, seed: int) -> UNet:
    """A network trained with one loss; the one with the best validation Dice of the CHECKS that were looked at."""
    torch.manual_seed(seed)
    first = study.training[0]
    network = UNet(first.label.ndim, len(first.image), study.classes, plan.channels).to(plan.device)
    loss_of = combine(weights, bins=BINS)
    optimiser = torch.optim.Adam(network.parameters(), plan.learning_rate)
    best, best_state = -1.0, network.state_dict()
    stream = batches(study.training, plan, np.random.default_rng(seed))
    for step in range(1, plan.iterations + 1):
        images, labels = next(stream)
        loss = loss_of(network(images), nn.functional.one_hot(labels, study.classes).movedim(-1, 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % max(1, plan.iterations // CHECKS) == 0:
            dice = float(np.nanmean([validation_dice(network, case, study, plan.device) for case in study.validation]))
            if dice > best:
                best, best_state = dice, {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(best_state)
    return network


def validation_dice(network: UNet, case: Case, study: Study, device: torch.device) -> float:
    decided = logits_of(network, case, device).argmax(0).cpu().numpy()
    values = [dice_of(np.isin(decided, v), np.isin(case.label, v)) for v in study.regions.values()]
    return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan


def fit_temperature(network: UNet, cases: list[Case], device: torch.device) -> float:
    """The T that minimises the mean negative log-likelihood of softmax(logits / T) on the cases."""
    logits, labels = [], []
    for case in cases:
        step = max(1, case.label.size // TEMPERATURE_VOXELS)
        logits.append(logits_of(network, case, device).flatten(1)[:, ::step].double().cpu().T)
        labels.append(torch.from_numpy(case.label.reshape(-1)[::step].astype(np.int64)))
    z, y = torch.cat(logits), torch.cat(labels)
    found = minimize_scalar(
        lambda log_t: float(nn.functional.cross_entropy(z / np.exp(log_t), y)), bounds=(-3, 5), method="bounded"
    )
    return float(np.exp(found.x))


# ------------------------------------------------------------------------------------------------------------ measures


def dice_of(decided: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two masks; NaN if both are empty."""
    total = decided.sum() + truth.sum()
    return 2 * (decided & truth).sum() / total if total else np.nan


def calibration_of(p: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """ACE over non-empty bins, ECE, MCE of one case and class, with right-closed bins. p float64, y bool, flat."""
    index = np.clip(np.ceil(p * BINS).astype(np.int64) - 1, 0, BINS - 1)
    n = np.bincount(index, minlength=BINS)
    gap = np.abs(np.bincount(index, p - y, BINS))[n > 0] / n[n > 0]
    return gap.mean(), float(gap @ n[n > 0]) / n.sum(), gap.max()


def measure(network: UNet, study: Study, temperature: float, device: torch.device) -> np.ndarray:
    """Every metric of every test case at one temperature, "case region metric"."""
    rows = []
    for case in study.test:
        logits = logits_of(network, case, device).double() / temperature
        decided = logits.argmax(0).cpu().numpy()
        probabilities = logits.softmax(0)
        for values in study.regions.values():
            truth = np.isin(case.label, values)
            p = probabilities[list(values)].sum(0).cpu().numpy()
            rows.append((dice_of(np.isin(decided, values), truth), *calibration_of(p.ravel(), truth.ravel())))
    return np.reshape(rows, (len(study.test), len(study.regions), len(METRICS)))


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap-t interval of the mean over cases; NaN with fewer than FEWEST. values: "case"."""
    n = len(values)
    if n < FEWEST:
        return np.nan, np.nan
    if not np.ptp(values):
        return values[0], values[0]
    drawn = values[np.random.default_rng(0).integers(n, size=(BOOTSTRAP, n))]
    error = drawn.std(1, ddof=1) / n**0.5
    varied = error > 1e-9 * values.std()  # a resample of one case alone has no error, but for rounding
    t = (drawn.mean(1) - values.mean())[varied] / error[varied]
    low, high = np.quantile(t, (0.975, 0.025))
    return tuple(values.mean() - np.array((low, high)) * values.std(ddof=1) / n**0.5)


def p_value(difference: np.ndarray) -> float:
    """Two-sided Wilcoxon signed-rank test on paired differences, zeros dropped; 1 if there is nothing else."""
    return float(wilcoxon(difference, zero_method="wilcox").pvalue) if difference.any() else 1.0


# -------------------------------------------------------------------------------------------------------------- report


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def columns(study: Study) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Class name -> how its values "case metric" come out of "case region metric"; the last one is their mean."""
    picks = {name: (lambda values, i=i: values[:, i]) for i, name in enumerate(study.regions)}
    return picks | ({"mean": lambda values: np.nanmean(values, 1)} if len(picks) > 1 else {})


def absolute_rows(name: str, values: np.ndarray, study: Study) -> list[list[str]]:
    """Table rows of one loss: mean, standard deviation over cases and interval of every metric."""
    rows = []
    for region, pick in columns(study).items():
        row = [name, region]
        for metric in pick(values).T:
            metric = metric[~np.isnan(metric)]
            low, high = interval(metric)
            spread = metric.std(ddof=1) if metric.size > 1 else np.nan
            row.append(f"{metric.mean():.4f} ± {spread:.4f} [{low:.4f}, {high:.4f}]" if metric.size else UNDEFINED)
        rows.append(row)
    return rows


def compared_rows(name: str, against: str, results: dict[str, np.ndarray], study: Study) -> list[list[str]]:
    """Table rows of one comparison: the difference in Dice, the other metrics' change relative to the mean of
    `against`, each with interval and p.
    """
    rows = []
    for region, pick in columns(study).items():
        row = [name, against, region]
        for metric, new, old in zip(METRICS, pick(results[name]).T, pick(results[against]).T, strict=True):
            both = ~(np.isnan(new) | np.isnan(old))
            if not both.any():
                row.append(UNDEFINED)
                continue
            difference = new[both] - old[both]
            p = p_value(difference)
            low, high = interval(difference)
            if metric == "Dice":
                row.append(f"{difference.mean():+.4f} [{low:+.4f}, {high:+.4f}], p = {p:.1e}")
            else:
                base = old[both].mean()
                row.append(f"{difference.mean() / base:+.1%} [{low / base:+.1%}, {high / base:+.1%}], p = {p:.1e}")
        rows.append(row)
    return rows


def verdict(results: dict[str, np.ndarray]) -> str:
    """Whether the published effect was reproduced, in one line per bound."""
    new, old = (np.nanmean(results[name], (0, 1)) for name in COMPARED[0])
    lines = []
    for metric, bound in REQUIRED.items():
        change = new[METRICS.index(metric)] / old[METRICS.index(metric)] - 1
        lines.append(f"* {metric} {change:+.1%} (at most {bound:+.0%}): {'met' if change <= bound else 'NOT met'}")
    change = new[0] - old[0]
    met = "met" if abs(change) <= ALLOWED_DICE else "NOT met"
    lines.append(f"* Dice {change:+.4f} (at most {ALLOWED_DICE} either way): {met}")
    return "\n".join(lines)


def report(results: dict[str, np.ndarray], temperatures: dict[str, float], study: Study, facts: str) -> str:
    """The whole document: what was done, every loss by itself, the comparisons."""
    absolute = [row for name, values in results.items() for row in absolute_rows(name, values, study)]
    compared = [row for name, against in COMPARED for row in compared_rows(name, against, results, study)]
    return "\n\n".join(
        (
            "# Training with mL1-ACE",
            facts,
            table(["loss", "class", *METRICS], absolute),
            "Mean ± standard deviation over test cases [95 % bootstrap-t interval of the mean]. The background is left "
            f"out; M = {BINS} right-closed bins; mean over non-empty bins. Temperatures: "
            + ", ".join(f"{name} {t:.2f}" for name, t in temperatures.items()),
            table(["loss", "against", "class", "Dice difference", *(f"{m} change" for m in METRICS[1:])], compared),
            "Paired over test cases: mean change [95 % bootstrap-t interval], p of the Wilcoxon signed-rank test, not "
            "adjusted for the number of tests.",
        )
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="train on images/ and labels/ of FOLDER")
    parser.add_argument("--dimensions", type=int, choices=(2, 3), default=2, help="of generated cases (default 2)")
    parser.add_argument("--iterations", type=int, default=1000, help="of each training (default 1000)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings per loss, averaged case by case (default 1)")
    parser.add_argument("--patch", type=int, help="edge of a training patch (default 160 in 2-D, 96 in 3-D)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default cpu)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds; its numbers mean nothing")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    size = options.patch or (160 if options.dimensions == 2 else 96)
    counts = (240, 40, 100)
    plan = Plan(options.iterations, batch=8, patch=size, device=torch.device(options.device))
    if options.quick:
        size, counts = 64 if options.dimensions == 2 else 32, (8, 4, 8)
        plan = replace(plan, iterations=4, batch=2, patch=size)
    study = folder_study(options.data) if options.data else generated_study(options.dimensions, size, counts)
    if options.data and not options.patch and not options.quick:
        plan = replace(plan, patch=160 if study.test[0].label.ndim == 2 else 96)

    results: dict[str, np.ndarray] = {}
    temperatures: dict[str, float] = {}
    start = time.monotonic()
    for name, weights in LOSSES.items():
        raw, scaled, fitted = [], [], []
        for seed in range(options.seeds):
            network = train(study, weights, plan, seed)
            fitted.append(fit_temperature(network, study.validation, plan.device))
            raw.append(measure(network, study, 1.0, plan.device))
            scaled.append(measure(network, study, fitted[-1], plan.device))
        results[name], results[name + SCALED] = np.mean(raw, 0), np.mean(scaled, 0)
        temperatures[name] = float(np.mean(fitted))
        for row in (name, name + SCALED):
            means = zip(METRICS, np.nanmean(results[row], (0, 1)), strict=True)
            seen = ", ".join(f"{metric} {mean:.4f}" for metric, mean in means)
            print(f"{time.monotonic() - start:6.0f} s  {row}: {seen}", file=sys.stderr, flush=True)
    facts = (
        f"{len(study.training)} training, {len(study.validation)} validation and {len(study.test)} test cases "
        f"({'read from ' + options.data.name if options.data else 'generated'}), {plan.iterations} iterations of "
        f"{plan.batch} patches of {plan.patch} per axis, {options.seeds} seed(s), {plan.device}, "
        f"{time.monotonic() - start:.0f} s in all."
    )
    print(report(results, temperatures, study, facts))
    if not options.data and not options.quick:
        print(f"\n{COMPARED[0][0]} against {COMPARED[0][1]}, mean over classes:\n\n{verdict(results)}")


if __name__ == "__main__":
    main()
