"""Metrics of readings and of boxes. Each is an object: `update` with a batch, `compute`, `reset`."""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.charset import LOOKALIKES

_MERGE = str.maketrans({char: group[0] for group in LOOKALIKES for char in group})
_Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


def merge_lookalikes(text: str) -> str:
    """Replaces every character of a group of `LOOKALIKES` by the group's first one."""
    return text.translate(_MERGE)


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate.

    Unlike the textbook interval it stays inside [0, 1] and is honest at rates near 0 and 1.
    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).

    Args:
        successes: how often it happened, 0..`count`.
        count: number of trials; 0 leaves everything open: (0, 1).

    Raises:
        ValueError: if `successes` is not in 0..`count`.
    """
    if not 0 <= successes <= count:
        raise ValueError(f"successes must be in 0..{count}, not {successes}")
    if count == 0:
        return 0.0, 1.0
    rate, z2 = successes / count, _Z95**2
    centre = (rate + z2 / (2 * count)) / (1 + z2 / count)
    margin = _Z95 * math.sqrt(rate * (1 - rate) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    # At the ends the formula gives exactly 0 and 1, up to rounding.
    low = 0.0 if successes == 0 else centre - margin
    return low, 1.0 if successes == count else centre + margin


def align(predicted: str, text: str) -> list[tuple[str, str]]:
    """Aligns two strings with as few edits as can be.

    Source: Wagner and Fischer, "The String-to-String Correction Problem", Journal of the ACM 21 (1974).

    Args:
        predicted: the string that was read.
        text: the ground-truth string.

    Returns:
        Pairs (true character, read character) from left to right. The first is empty where `predicted` has an extra
        character, the second where it misses one; the number of unequal pairs is the Levenshtein distance. Of equally
        short alignments the one with substitutions furthest to the right is taken.
    """
    if predicted == text:  # the common case of a good reader, which would cost the most
        return list(zip(text, predicted, strict=True))
    rows, columns = len(text) + 1, len(predicted) + 1
    cost = [[row + column for column in range(columns)] for row in range(rows)]
    for row in range(1, rows):
        for column in range(1, columns):
            substituted = cost[row - 1][column - 1] + (text[row - 1] != predicted[column - 1])
            cost[row][column] = min(substituted, cost[row - 1][column] + 1, cost[row][column - 1] + 1)
    pairs: list[tuple[str, str]] = []
    row, column = len(text), len(predicted)
    while row or column:
        here = cost[row][column]
        if row and column and here == cost[row - 1][column - 1] + (text[row - 1] != predicted[column - 1]):
            row, column = row - 1, column - 1
            pairs.append((text[row], predicted[column]))
        elif row and here == cost[row - 1][column] + 1:
            row -= 1
            pairs.append((text[row], ""))
        else:
            column -= 1
            pairs.append(("", predicted[column]))
    return pairs[::-1]


@dataclass(frozen=True)
class StringScores:
    """How well strings were read.

    Attributes:
        count: number of strings.
        exact_match: share of strings read without any error. This and the next three are NaN where `count` is 0.
        exact_match_nocase: the same, ignoring case.
        exact_match_lookalikes: the same, with each group of `LOOKALIKES` merged.
        length_match: share of strings read with the right number of characters.
        cer: character error rate, sum of the Levenshtein distances / sum of the true lengths; may pass 1, and is NaN
            where there is no true character.
        intervals: 95 % Wilson interval of each of the four shares, by its name.
    """

    count: int
    exact_match: float
    exact_match_nocase: float
    exact_match_lookalikes: float
    length_match: float
    cer: float
    intervals: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class StringMatchResult(StringScores):
    """What `StringMatch` computes.

    Attributes:
        by_length: scores of the strings of each true length, shortest first.
        confusions: how often a true character was read as another, (true, read), most frequent first. `read` is empty
            where a character was missed, `true` where one was extra.
    """

    by_length: Mapping[int, StringScores]
    confusions: Mapping[tuple[str, str], int]


@dataclass
class _Tally:
    count: int = 0
    edits: int = 0
    characters: int = 0
    hits: Counter[str] = field(default_factory=Counter)

    def add(self, predicted: str | None, text: str, edits: int) -> None:
        self.count += 1
        self.edits += edits
        self.characters += len(text)
        if predicted is None:
            return
        self.hits["exact_match"] += predicted == text
        self.hits["exact_match_nocase"] += predicted.casefold() == text.casefold()
        self.hits["exact_match_lookalikes"] += merge_lookalikes(predicted) == merge_lookalikes(text)
        self.hits["length_match"] += len(predicted) == len(text)

    def scores(self) -> dict[str, Any]:
        names = ("exact_match", "exact_match_nocase", "exact_match_lookalikes", "length_match")
        return {
            "count": self.count,
            **{name: self.hits[name] / self.count if self.count else math.nan for name in names},
            "cer": self.edits / self.characters if self.characters else math.nan,
            "intervals": {name: wilson_interval(self.hits[name], self.count) for name in names},
        }


class StringMatch:
    """Whole-string and character-level accuracy of readings."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self._total = _Tally()
        self._by_length: dict[int, _Tally] = {}
        self._confusions: Counter[tuple[str, str]] = Counter()

    def update(self, predicted: Sequence[str | None], texts: Sequence[str]) -> None:
        """Takes in a batch.

        Args:
            predicted: the strings that were read. None, no answer, is wrong whatever the text: all its characters are
                errors, but none is a confusion.
            texts: the ground-truth strings, one for each of `predicted`.

        Raises:
            ValueError: if the two differ in number.
        """
        if len(predicted) != len(texts):
            raise ValueError(f"{len(predicted)} readings do not fit {len(texts)} texts")
        for read, text in zip(predicted, texts, strict=True):
            edits = len(text)
            if read is not None:
                mistakes = [pair for pair in align(read, text) if pair[0] != pair[1]]
                self._confusions.update(mistakes)
                edits = len(mistakes)
            for tally in (self._total, self._by_length.setdefault(len(text), _Tally())):
                tally.add(read, text, edits)

    def compute(self) -> StringMatchResult:
        """Scores everything seen since the last `reset`."""
        frequent_first = sorted(self._confusions.items(), key=lambda item: (-item[1], item[0]))
        return StringMatchResult(
            **self._total.scores(),
            by_length={length: StringScores(**self._by_length[length].scores()) for length in sorted(self._by_length)},
            confusions=dict(frequent_first),
        )


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[tuple[float, float, int]]:
    """How sure a reader was, beside how often it was right, in groups of equally many readings.

    Args:
        confidences: [N], probability that each string is right.
        right: [N], whether it was.
        bins: how many groups of about equal confidence to make.

    Returns:
        Mean confidence, share of right readings and number of readings of each group that has any, least sure first.
    """
    order = np.argsort(confidences, kind="stable")
    sure, hits = np.asarray(confidences, np.float64)[order], np.asarray(right, np.float64)[order]
    groups = zip(np.array_split(sure, bins), np.array_split(hits, bins), strict=True)
    return [(float(group.mean()), float(good.mean()), len(group)) for group, good in groups if len(group)]


def calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015), with bins that hold equally many readings.

    Args:
        confidences: [N], probability that each string is right.
        right: [N], whether it was.
        bins: how many groups of about equal confidence to compare.

    Returns:
        Mean difference between how sure the reader was and how often it was right, in [0, 1]; 0 without readings.
    """
    groups = reliability(confidences, right, bins)
    return sum(abs(sure - good) * count for sure, good, count in groups) / max(len(confidences), 1)


def risk_coverage(confidences: Sequence[float], right: Sequence[bool]) -> npt.NDArray[np.float64]:
    """What accepting only the surer readings brings (El-Yaniv and Wiener, JMLR 11, 2010).

    Args:
        confidences: [N], probability that each string is right.
        right: [N], whether it was.

    Returns:
        float [M, 3], a row for each confidence that occurs, highest first: this confidence, the share of readings that
        are at least as sure, and the share of wrong ones among those.
    """
    order = np.argsort(-np.asarray(confidences, np.float64), kind="stable")
    sure, wrong = np.asarray(confidences, np.float64)[order], 1 - np.asarray(right, np.float64)[order]
    accepted = np.arange(1, len(order) + 1)
    last_of_equals = np.append(sure[1:] != sure[:-1], True)[: len(order)]
    curve = np.stack([sure, accepted / max(len(order), 1), np.cumsum(wrong) / accepted], axis=1)
    result: npt.NDArray[np.float64] = curve[last_of_equals]
    return result


def min_confidence_for(confidences: Sequence[float], right: Sequence[bool], share: float) -> float | None:
    """The lowest confidence that surely keeps a share of the accepted readings right; None if none does.

    Sure is what holds at the lower end of Wilson's 95 % interval: by the share alone a lucky few would be enough.

    Args:
        confidences: [N], probability that each string is right.
        right: [N], whether it was.
        share: of the readings at least that sure, how many shall be right, in [0, 1].
    """
    curve = risk_coverage(confidences, right)
    accepted = np.rint(curve[:, 1] * len(confidences)).astype(int)
    rights = np.rint((1 - curve[:, 2]) * accepted).astype(int)
    lowest = [wilson_interval(*pair)[0] for pair in zip(rights.tolist(), accepted.tolist(), strict=True)]
    good = curve[np.array(lowest) >= share]
    return float(good[-1, 0]) if len(good) else None


@dataclass(frozen=True)
class BoxScores:
    """Mean average precision as COCO defines it; NaN where there is no true box.

    Attributes:
        mAP: mean over the IoU thresholds .50, .55, ... .95 and the classes that occur.
        mAP50: at IoU .50.
        mAP75: at IoU .75.
    """

    mAP: float
    mAP50: float
    mAP75: float


class BoxMeanAveragePrecision:
    """COCO mean average precision of boxes, by pycocotools: https://github.com/cocodataset/cocoapi."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self._images = 0
        self._truths: list[dict[str, Any]] = []
        self._detections: list[dict[str, Any]] = []

    def update(
        self,
        boxes: npt.NDArray[np.floating[Any]],
        scores: npt.NDArray[np.floating[Any]],
        labels: npt.NDArray[np.integer[Any]],
        true_boxes: npt.NDArray[np.floating[Any]],
        true_labels: npt.NDArray[np.integer[Any]],
    ) -> None:
        """Takes in one image.

        Args:
            boxes: [N, 4], xyxy in pixels: what was detected. At most the 100 best of a class count, as in COCO.
            scores: [N].
            labels: [N], not negative.
            true_boxes: [M, 4], in the same pixels.
            true_labels: [M].

        Raises:
            ValueError: if shapes do not fit.
        """
        if boxes.shape != (len(scores), 4) or labels.shape != scores.shape:
            raise ValueError(
                f"need boxes [N, 4], scores [N], labels [N], not {boxes.shape}, {scores.shape}, {labels.shape}"
            )
        if true_boxes.shape != (len(true_labels), 4):
            raise ValueError(f"need true boxes [M, 4], true labels [M], not {true_boxes.shape}, {true_labels.shape}")
        self._images += 1
        for box, label in zip(true_boxes, true_labels, strict=True):
            self._truths.append(self._annotation(box, label, len(self._truths)))
        for box, score, label in zip(boxes, scores, labels, strict=True):
            annotation = self._annotation(box, label, len(self._detections))
            self._detections.append({**annotation, "score": float(score)})

    def compute(self) -> BoxScores:
        """Scores everything seen since the last `reset`."""
        if not self._truths:
            return BoxScores(math.nan, math.nan, math.nan)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            evaluation = COCOeval(self._dataset(self._truths), self._dataset(self._detections), "bbox")
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.params.maxDets = [100]
            evaluation.evaluate()
            evaluation.accumulate()
        precision: npt.NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0, 0]  # [IoU, recall, class]
        precision = precision[:, :, (precision > -1).all(axis=(0, 1))]  # -1: a class that has no true box
        return BoxScores(*(float(part.mean()) for part in (precision, precision[0], precision[5])))

    def _annotation(self, box: npt.NDArray[np.floating[Any]], label: int, index: int) -> dict[str, Any]:
        x1, y1, x2, y2 = (float(value) for value in box)
        return {
            "id": index + 1,  # pycocotools takes the id 0 for "not matched"
            "image_id": self._images,
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }

    def _dataset(self, annotations: list[dict[str, Any]]) -> Any:
        dataset = COCO()
        labels = sorted({annotation["category_id"] for annotation in self._truths + self._detections})
        dataset.dataset = {
            "images": [{"id": image + 1} for image in range(self._images)],
            "categories": [{"id": label} for label in labels],
            "annotations": [dict(annotation) for annotation in annotations],  # pycocotools writes into them
        }
        dataset.createIndex()
        return dataset
