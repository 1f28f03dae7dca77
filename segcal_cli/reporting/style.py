"""How every picture looks, and how it becomes bytes that are the same on every run.

Colours are those of Okabe and Ito, which people with any colour vision tell apart, and cividis for maps; a second sign
(marker, hatch, line) always says the same as the colour. Text is at least 8 points at the printed size. A picture is
laid out in inches: title on top, legend and caption below, so that neither can cover data, and the plot in between has
the size it asks for. Figures are built without pyplot, which would keep them all and look for a display.
"""

from __future__ import annotations

import bisect
import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

from segcal_cli.core.frozen import dataclass

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

INK = "#222222"
"""Text and axes. Used for nothing else, so that a dark page can exchange it."""

PAPER = "#fefefe"
"""Background. Used for nothing else, as INK."""

QUIET = "#767676"
"""Diagonals, grids and bands: visible on light and on dark paper."""

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
"""Okabe and Ito 2008, "Color universal design", without black (ink) and yellow (too light on paper)."""

TITLE_POINTS, TEXT_POINTS, SMALL_POINTS = 10.5, 9.0, 8.0
"""Sizes of text; nothing is smaller than the last."""

LINE_SPACING = 1.3

MARGIN = 0.12
"""Inches between the edge of a picture and what is in it."""

HANDLE, HANDLE_GAP, COLUMN_GAP = 2.4, 0.8, 1.4
"""Of a legend, in widths of its text: the sign, the space after it, the space between columns."""

LEGEND_ENTRY = (HANDLE + HANDLE_GAP + COLUMN_GAP) * SMALL_POINTS / 72.0
"""Inches of an entry beside its text."""

PNG, SVG, PDF = "png", "svg", "pdf"

FORMATS = (SVG, PNG, PDF)

WITHOUT_TRACES: Mapping[str, dict[str, None]] = {
    PNG: {"Software": None},
    SVG: {"Date": None, "Creator": None},
    PDF: {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Metadata that would change with the day or the version of a library."""

HINTING: Literal["none"] = "none"
"""Hinting moves letters to whole pixels, and a line of text is then up to a tenth wider at one resolution than at
another; without it what is measured at one is right at all."""

SETTINGS: dict[str, Any] = {
    "text.hinting": HINTING,
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": PAPER,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT_POINTS,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": TEXT_POINTS,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
    "svg.hashsalt": "segcal",
    "text.color": INK,
    # Names of classes and cases may hold dollar signs, and are no formulas.
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelsize": SMALL_POINTS,
    "ytick.color": INK,
    "ytick.labelsize": SMALL_POINTS,
}
"""On top of matplotlib's own defaults: a user's matplotlibrc changes no byte."""


@dataclass(frozen=True, slots=True)
class Look:
    """How one source is told from the others, three times over."""

    colour: str
    marker: str
    hatch: str
    line: str


LOOKS = (
    Look(BLUE, "o", "", "-"),
    Look(VERMILLION, "s", "////", "--"),
    Look(GREEN, "^", "xxxx", "-."),
    Look(PURPLE, "D", "\\\\\\\\", ":"),
    Look(ORANGE, "v", "----", (0, (6, 2, 1, 2, 1, 2))),  # type: ignore[arg-type]
    Look(SKY, "p", "++++", (0, (8, 3))),  # type: ignore[arg-type]
    Look(BLUE, "*", "||||", (0, (1, 3))),  # type: ignore[arg-type]
    Look(VERMILLION, "<", "//", (0, (3, 1, 1, 1))),  # type: ignore[arg-type]
    Look(GREEN, "d", "....", (0, (10, 2, 2, 2))),  # type: ignore[arg-type]
    Look(PURPLE, ">", "oooo", (0, (4, 1, 1, 1, 1, 1))),  # type: ignore[arg-type]
    Look(ORANGE, "h", "xx", (0, (2, 2))),  # type: ignore[arg-type]
    Look(SKY, (4, 1, 45), "\\\\", (0, (12, 2, 4, 2))),  # type: ignore[arg-type]
)
"""Colours come again from the seventh source on, the other marks not. Every marker has a face, which may be hollow."""


def look(index: int) -> Look:
    """The look of the source with that place in the run; beyond LOOKS they come again."""
    return LOOKS[index % len(LOOKS)]


@dataclass(frozen=True, slots=True)
class Words:
    """What stands around a plot. caption: what was counted, by which conventions, in which unit, on how many."""

    title: str
    caption: str


class Sheet:
    """A figure of ``width`` inches around a plot area of ``height`` inches, with words and legend outside of it."""

    def __init__(self, words: Words, width: float, height: float, legend: Sequence[Artist] = ()) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        room = width - 2 * MARGIN
        title = wrapped(words.title, room, TITLE_POINTS, bold=True)
        caption = wrapped(words.caption, room, SMALL_POINTS)
        for artist in legend:
            artist.set_label(shortened(str(artist.get_label()), room - LEGEND_ENTRY))
        rows = legend_rows(legend, room)
        self.width, self.height = width, height
        top = MARGIN + _block(title, TITLE_POINTS) + 0.08
        below = MARGIN + _block(caption, SMALL_POINTS) + 0.06
        self.bottom = below + rows * _line(TEXT_POINTS)
        self.total = self.bottom + height + top
        self.figure = Figure(figsize=(width, self.total))
        FigureCanvasAgg(self.figure)
        at = MARGIN / width
        self.figure.text(
            at, 1 - MARGIN / self.total, "\n".join(title), va="top", weight="bold", size=TITLE_POINTS,
            linespacing=LINE_SPACING,
        )  # fmt: skip
        self.figure.text(
            at, MARGIN / self.total, "\n".join(caption), va="bottom", size=SMALL_POINTS, linespacing=LINE_SPACING
        )
        if legend:
            self.figure.legend(
                handles=list(legend), loc="lower left", bbox_to_anchor=(at, below / self.total), borderpad=0.0,
                ncols=-(-len(legend) // rows), fontsize=SMALL_POINTS, borderaxespad=0.0, columnspacing=COLUMN_GAP,
                handlelength=HANDLE, handletextpad=HANDLE_GAP, labelspacing=0.5,
            )  # fmt: skip

    def axes(self, left: float, bottom: float, width: float, height: float, **more: Any) -> Axes:
        """Axes in inches from the lower left corner of the plot area."""
        box = (
            left / self.width,
            (self.bottom + bottom) / self.total,
            width / self.width,
            height / self.total,
        )
        return self.figure.add_axes(box, **more)

    def plot_box(self, *, left: float = 0.62, bottom: float = 0.5, right: float = 0.2, top: float = 0.1) -> Axes:
        """Axes that fill the plot area but for margins for labels."""
        return self.axes(left, bottom, self.width - left - right, self.height - bottom - top)


def wrapped(text: str, width: float, points: float, *, bold: bool = False) -> list[str]:
    """Lines no wider than ``width`` inches; a word that is longer alone is cut."""
    space = text_width("n n", points, bold=bold) - text_width("nn", points, bold=bold)
    lines: list[str] = []
    filled = width
    for word in text.split():
        while text_width(word, points, bold=bold) > width:
            fits = max(1, _most(len(word), partial(_beginning_fits, word, width, points, bold)))
            lines.append(word[:fits])
            word, filled = word[fits:], width
        needed = text_width(word, points, bold=bold)
        if lines and filled + space + needed <= width:
            lines[-1] += f" {word}"
            filled += space + needed
        else:
            lines.append(word)
            filled = needed
    return lines


def _beginning_fits(word: str, width: float, points: float, bold: bool, n: int) -> bool:
    return text_width(word[:n], points, bold=bold) <= width


def shortened(name: str, width: float) -> str:
    """The name in at most ``width`` inches of small text, its middle left out."""
    if text_width(name, SMALL_POINTS) <= width:
        return name
    kept = max(1, _most(len(name) // 2, lambda n: text_width(f"{name[:n]}…{name[-n:]}", SMALL_POINTS) <= width))
    return f"{name[:kept]}…{name[-kept:]}"


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to the limit that fits, 0 if none does; smaller ones fit if larger ones do."""
    return bisect.bisect_left(range(1, limit + 1), True, key=lambda n: not fits(n))


@lru_cache(maxsize=4096)
def text_width(text: str, points: float, *, bold: bool = False) -> float:
    """Inches, at any resolution. Captions share most of their words."""
    from matplotlib import rc_context
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family="DejaVu Sans", size=points, weight="bold" if bold else "normal")
    with rc_context({"text.hinting": HINTING}), _no_missing_glyphs():
        return float(_ruler().get_text_width_height_descent(text, font, ismath=False)[0]) / 72.0


@cache
def _ruler() -> Any:
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, 72)


def legend_rows(legend: Sequence[Artist], width: float) -> int:
    """Rows that a legend of equal columns needs to fit the width."""
    if not legend:
        return 0
    # A legend's columns are as wide as their widest entry; taking the widest of all is on the safe side.
    widest = max(text_width(str(artist.get_label()), SMALL_POINTS) for artist in legend)
    columns = max(1, int((width + COLUMN_GAP * SMALL_POINTS / 72.0) // (widest + LEGEND_ENTRY)))
    return -(-len(legend) // columns)


def _line(points: float) -> float:
    return 1.45 * points / 72.0


def _block(lines: Sequence[str], points: float) -> float:
    return len(lines) * LINE_SPACING * 1.17 * points / 72.0


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """The style of pictures, whatever the user's own settings are."""
    import matplotlib.style

    with matplotlib.style.context(["default", SETTINGS]), _no_missing_glyphs():
        yield


@contextlib.contextmanager
def _no_missing_glyphs() -> Iterator[None]:
    """Names in scripts that the font lacks are drawn as boxes; the page and the tables still spell them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def saved(figure: Figure, format: str, dpi: int, title: str) -> bytes:
    """The figure as a file of that format, the same bytes on every run. title: its name, kept inside the file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=dpi, metadata={"Title": title, **WITHOUT_TRACES[format]})
    return buffer.getvalue()


DIAGONAL: Mapping[str, Any] = {"color": QUIET, "ls": "--", "lw": 1.0}
"""Where the frequency is the probability."""


def diagonal(axes: Axes) -> None:
    """The line of a calibrated model."""
    axes.plot([0, 1], [0, 1], **DIAGONAL, zorder=1)


def diagonal_sign() -> Line2D:
    """What a legend says of it."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **DIAGONAL, label="calibrated")


def keep_within(axes: Axes, which: str, top: float = 1.0) -> None:
    """Take from an axis what a measure from 0 to ``top`` cannot be."""
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    axes.set(**{f"{which}lim": (max(low, 0.0), min(high, top))})


def unit_axis(axes: Axes, which: str, label: str) -> None:
    """An axis from 0 to 1 in fifths."""
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    axes.set(**{f"{which}lim": (0.0, 1.0), f"{which}ticks": ticks, f"{which}label": label})


def count_axis(axes: Axes, counts: Sequence[int], label: str) -> None:
    """A y axis of counts: logarithmic where the largest is over a hundred times the smallest that is not 0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    filled = [count for count in counts if count > 0]
    axes.set_ylabel(label)
    if filled and max(filled) > LOG_FROM * min(filled):
        axes.set_yscale("log")
        axes.set_ylim(0.5, max(filled) * 2.0)
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0.0, 1.1 * max(filled, default=1))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=2))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


LOG_FROM = 100
"""Counts that differ by more than this factor are shown on a logarithmic axis."""


def short_count(value: float) -> str:
    """12, 3.4k, 5M: a count in at most four characters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
