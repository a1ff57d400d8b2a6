"""The pictures of a report. Each function returns a PNG."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from detector.evaluation.benchmark import Mistake, Outcome, Source, confidences
from detector.evaluation.metrics import StringScores, risk_coverage, wilson_interval
from detector.images import ImageError, load

CONFUSIONS_SHOWN = 20
_COLUMNS = 6
_TILE_WH = (248, 150)
_PICTURE_WH = (240, 104)
_INK, _GREY, _RED, _GREEN = (20, 20, 20), (225, 225, 225), (208, 32, 48), (0, 128, 80)


def accuracy_by_length(by_length: Mapping[int, StringScores]) -> bytes:
    """Exact match of the strings of each length, with 95 % intervals."""
    figure, axes = _figure("Length of the string", "Exact match, %")
    lengths = sorted(by_length)
    rates = np.array([by_length[length].exact_match for length in lengths])
    intervals = np.array([by_length[length].intervals["exact_match"] for length in lengths])  # [lengths, 2]
    axes.errorbar(lengths, 100 * rates, 100 * np.abs(intervals.T - rates), fmt="o-", capsize=4)
    axes.set_xticks(lengths, [f"{length}\nn={by_length[length].count}" for length in lengths])
    axes.set_ylim(0, 102)
    return _png(figure)


def frequent_confusions(confusions: Mapping[tuple[str, str], int]) -> bytes:
    """The most frequent pairs of a true character and what it was read as."""
    figure, axes = _figure("Times", "True → read")
    pairs = list(confusions.items())[:CONFUSIONS_SHOWN]
    # A dollar sign would start a formula.
    names = [confusion_name(*pair).replace("$", r"\$") for pair, _ in pairs]
    axes.barh(range(len(pairs)), [count for _, count in pairs])
    axes.set_yticks(range(len(pairs)), names, family="DejaVu Sans Mono")
    axes.invert_yaxis()
    return _png(figure)


def confidence_histogram(outcomes: Sequence[Outcome]) -> bytes:
    """How confident the reader was where it was right, and where it was wrong."""
    figure, axes = _figure("Confidence", "Images")
    pairs = list(zip(*confidences(outcomes), strict=True))
    groups = [[sure for sure, right in pairs if right is wanted] for wanted in (True, False)]
    axes.hist(groups, bins=20, range=(0, 1), stacked=True, label=["right", "wrong"], color=["tab:green", "tab:red"])
    axes.legend()
    return _png(figure)


def reliability_diagram(groups: Sequence[tuple[float, float, int]]) -> bytes:
    """How often readings were right, by how sure the reader was; on the diagonal confidence is what it says.

    Args:
        groups: of readings, as `metrics.reliability` and the cards have them.
    """
    figure, axes = _figure("Confidence", "Share of right strings")
    intervals = [wilson_interval(round(good * count), count) for _, good, count in groups]
    rates = np.array([good for _, good, _ in groups])
    axes.plot([0, 1], [0, 1], color="lightgrey", zorder=0)
    axes.errorbar([sure for sure, _, _ in groups], rates, np.abs(np.array(intervals).T - rates), fmt="o-", capsize=3)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return _png(figure)


def risk_coverage_curve(outcomes: Sequence[Outcome]) -> bytes:
    """The share of wrong strings among those accepted, by how many are accepted, the surest first."""
    figure, axes = _figure("Share of images accepted, the surest first", "Share of wrong strings among them")
    curve = risk_coverage(*confidences(outcomes))
    axes.plot(curve[:, 1], curve[:, 2])
    axes.set(xlim=(0, 1), ylim=(0, None))
    return _png(figure)


def lines(curves: Mapping[str, Mapping[int, float]], xlabel: str, ylabel: str) -> bytes:
    """Curves with names, each a value for some whole numbers."""
    figure, axes = _figure(xlabel, ylabel)
    for (name, points_of), (colour, marker, dashes) in zip(curves.items(), _styles(), strict=False):
        axes.plot(
            list(points_of), list(points_of.values()), dashes, color=colour, marker=marker, markersize=4, label=name
        )
    axes.set_ylim(0, 102)
    _legend_beside(figure)
    return _png(figure)


def points(places: Mapping[str, tuple[float, float]], xlabel: str, ylabel: str) -> bytes:
    """Points with names; the horizontal axis is logarithmic."""
    figure, axes = _figure(xlabel, ylabel)
    for (name, (x, y)), (colour, marker, _) in zip(places.items(), _styles(), strict=False):
        axes.plot([x], [y], color=colour, marker=marker, linestyle="none", markersize=8, label=name)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    _legend_beside(figure)
    return _png(figure)


def grouped_confusions(confusions: Mapping[str, Mapping[tuple[str, str], int]]) -> bytes:
    """The most frequent confusions of all, and how often each reader makes them."""
    figure, axes = _figure("True → read", "Times")
    totals: dict[tuple[str, str], int] = {}
    for counts in confusions.values():
        for pair, count in counts.items():
            totals[pair] = totals.get(pair, 0) + count
    pairs = sorted(totals, key=lambda pair: -totals[pair])[: CONFUSIONS_SHOWN // 2]
    width = 0.8 / max(len(confusions), 1)
    for number, (name, counts) in enumerate(confusions.items()):
        places = [place + (number - (len(confusions) - 1) / 2) * width for place in range(len(pairs))]
        axes.bar(places, [counts.get(pair, 0) for pair in pairs], width, label=name)
    axes.set_xticks(range(len(pairs)), [confusion_name(*pair).replace("$", r"\$") for pair in pairs], rotation=30)
    axes.legend(fontsize="small")
    return _png(figure)


def readings_side_by_side(
    images: Sequence[npt.NDArray[np.uint8]], texts: Sequence[str], readings: Mapping[str, Sequence[str]]
) -> bytes:
    """Images, each with its true string and below it what each reader read, wrong answers in red."""
    columns = min(4, len(images))
    height = _PICTURE_WH[1] + 24 + 18 * len(readings)
    sheet = Image.new("RGB", (_TILE_WH[0] * columns, height * -(-len(images) // columns)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (image, text) in enumerate(zip(images, texts, strict=True)):
        x, y = _TILE_WH[0] * (index % columns) + 4, height * (index // columns) + 4
        picture = Image.fromarray(image)
        picture.thumbnail(_PICTURE_WH)
        sheet.paste(picture, (x, y))
        draw.text((x, y + _PICTURE_WH[1]), text, _INK, _font(14))
        for number, (name, answers) in enumerate(readings.items()):
            colour = _GREEN if answers[index] == text else _RED
            line = f"{answers[index] or 'nothing'}  {name}"
            draw.text((x, y + _PICTURE_WH[1] + 18 * (number + 1)), line[:34], colour, _font(12))
    return _encoded(sheet)


def contact_sheet(mistakes: Sequence[Mistake]) -> bytes:
    """The given mistakes side by side: the image with the boxes of the reading, the true string, the string read."""
    rows = -(-len(mistakes) // _COLUMNS)
    sheet = Image.new("RGB", (_TILE_WH[0] * min(_COLUMNS, len(mistakes)), _TILE_WH[1] * rows), "white")
    for index, mistake in enumerate(mistakes):
        row, column = divmod(index, _COLUMNS)
        sheet.paste(_tile(mistake), (column * _TILE_WH[0], row * _TILE_WH[1]))
    return _encoded(sheet)


def confusion_name(true: str, read: str) -> str:
    """Names a confusion, e.g. `O → 0`, `i missed`, `l extra`."""
    if not read:
        return f"{true} missed"
    return f"{true} → {read}" if true else f"{read} extra"


def _figure(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.8), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _styles() -> Iterator[tuple[str, str, str]]:
    """Colours, markers and dashes that tell many networks apart, the same ones for the same place in all pictures."""
    for marker, dashes in zip("osD^v", cycle(("-", "--")), strict=False):
        yield from ((f"C{number}", marker, dashes) for number in range(10))


def _legend_beside(figure: Figure) -> None:
    """Names what is shown, where it covers nothing."""
    figure.legend(loc="outside right upper", fontsize="small")


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _tile(mistake: Mistake) -> Image.Image:
    """One mistake as a picture of `_TILE_WH`."""
    outcome = mistake.outcome
    tile = Image.new("RGB", _TILE_WH, "white")
    draw = ImageDraw.Draw(tile)
    picture = _picture(mistake.source)
    if picture is None:
        draw.rectangle((4, 4, 3 + _PICTURE_WH[0], 3 + _PICTURE_WH[1]), fill=_GREY)
        draw.text((12, 44), "cannot be read", _RED, _font(14))
    else:
        scale = min(_PICTURE_WH[0] / picture.width, _PICTURE_WH[1] / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        tile.paste(picture.resize(size, Image.Resampling.BICUBIC), (4, 4))
        for character in outcome.reading.characters:
            draw.rectangle([4 + value * scale for value in character.box], outline=_RED)
    draw.text((4, 109), outcome.text, _GREEN, _font(14))
    draw.text((4, 127), outcome.reading.text or "nothing", _RED, _font(14))
    draw.text((_TILE_WH[0] - 4, 131), f"{outcome.reading.confidence:.2f}", _INK, _font(11), anchor="ra")
    draw.text((_TILE_WH[0] - 4, 113), outcome.name[-16:], _INK, _font(11), anchor="ra")
    return tile


def _picture(source: Source) -> Image.Image | None:
    try:
        return Image.fromarray(load(source))
    except ImageError:
        return None


def _font(size: int) -> ImageFont.FreeTypeFont:
    """A face that tells 0 from O and 1 from l from I; matplotlib brings it along."""
    return ImageFont.truetype(findfont("DejaVu Sans Mono"), size)
