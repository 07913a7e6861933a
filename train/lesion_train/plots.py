"""Plots of a training run: each function draws one figure and writes it as one PNG.

Figures are made without pyplot, so drawing needs no display and leaves nothing behind in the process.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import atomic
from lesion_edge.errors import ImageError
from lesion_edge.metrics import expected_calibration_error
from lesion_edge.preprocess import load_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

DPI = 120
# From the Okabe–Ito palette, which stays distinguishable under the common kinds of colour blindness.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
QUIET = "#707070"
CHARACTER_INCHES = 0.6 / 72  # mean width of a character, per point of font size
# Values of exactly 0 or 1 lie on the frame, which must neither clip nor cover them. Without clipping, a line
# that happens to have no points would throw the layout off.
ON_THE_FRAME: dict[str, Any] = {"clip_on": False, "zorder": 3, "in_layout": False}


def plot_history(rows: Sequence[Mapping[str, float | str]], path: Path) -> None:
    """Write the training curves: loss on the left, accuracy on the right.

    Args:
        rows: one per epoch in the order trained, with stage (str), epoch, loss, accuracy, val_loss and
            val_accuracy (numbers, or their text as read from history.csv). Epochs are counted through all
            stages, whether or not the epoch column starts again with each.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _new_figure(9.0, 3.7)
    epochs = range(1, len(rows) + 1)
    stages = [str(row["stage"]) for row in rows]
    for axes, key in zip(figure.subplots(1, 2, gridspec_kw={"wspace": 0.06}), ("loss", "accuracy"), strict=True):
        _label_axes(axes, "epoch", key)
        for column, color, name in ((key, SERIES[0], "training"), (f"val_{key}", SERIES[1], "validation")):
            values = [float(row[column]) for row in rows]
            axes.plot(epochs, values, color=color, label=name, marker="o", markersize=4, linewidth=1.6)
        for epoch, (before, after) in enumerate(pairwise(stages), start=1):
            if before != after:
                axes.axvline(epoch + 0.5, color=QUIET, linestyle="--", linewidth=1)
                above = axes.get_xaxis_transform()
                for text, side in ((f"{before} ", "right"), (f" {after}", "left")):
                    axes.text(epoch + 0.5, 1.01, text, transform=above, ha=side, fontsize=9, color=QUIET)
        axes.set_xlim(0.5, max(len(rows), 1) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    _save(figure, path)


def plot_roc(
    curves: Mapping[str, tuple[NDArray[np.bool_ | np.integer], NDArray[np.floating]]], path: Path
) -> None:
    """Write ROC curves, each with its area in the legend ("AUC undefined" where a class is missing).

    Args:
        curves: name → (labels, score). labels: (N,) bool or int, 1 for the positive class; score: (N,) any
            finite floats, higher for the positive class.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    figure = _new_figure(4.8, 5.2)
    axes = figure.subplots()
    _label_axes(axes, "1 − specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1)
    for (name, (labels, score)), color in zip(curves.items(), cycle(SERIES), strict=False):
        is_positive = np.asarray(labels, bool)
        x, y, area = [], [], "AUC undefined"
        if is_positive.any() and not is_positive.all():
            x, y, _ = roc_curve(is_positive, score)
            area = f"AUC {roc_auc_score(is_positive, score):.3f}"
        label = f"{name}: {area} (n = {is_positive.size})"
        axes.plot(x, y, color=color, label=label, linewidth=1.8, **ON_THE_FRAME)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    figure.legend(loc="outside upper center", frameon=False)
    _save(figure, path)


def plot_confusion(matrix: NDArray[np.integer], class_names: Sequence[str], path: Path) -> None:
    """Write the confusion matrix, with the count and its percentage of the row in each cell.

    Args:
        matrix: (K, K) int, 0 or more; rows are the true class, columns the predicted one. The percentages
            of an empty row are dashes.
        class_names: the K names, in the order of the matrix.
    """
    counts = np.asarray(matrix)
    totals = counts.sum(axis=1)
    fractions = counts / np.maximum(totals, 1)[:, None]
    cell, characters = (1.3, 15) if len(counts) <= 3 else (0.85, 26)
    names = [textwrap.fill(_shorten(name, 48), characters, break_long_words=False) for name in class_names]
    longest = max(len(line) for name in names for line in name.splitlines()) * 10 * CHARACTER_INCHES
    side = cell * len(counts) + 0.6
    figure = _new_figure(side + longest, side + 0.7 * longest)
    axes = figure.subplots()
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = f"{100 * fractions[row, column]:.1f} %" if totals[row] else "–"
        color = "white" if fractions[row, column] > 0.65 else "black"
        axes.text(column, row, f"{count}\n{share}", color=color, ha="center", va="center", linespacing=1.4)
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if longest > cell else {}
    axes.set_xticks(range(len(names)), names, parse_math=False, **slant)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for boundary in np.arange(1, len(names)) - 0.5:
        axes.axhline(boundary, color="white", linewidth=2)
        axes.axvline(boundary, color="white", linewidth=2)
    _save(figure, path)


def plot_reliability(
    labels: NDArray[np.bool_ | np.integer], probability: NDArray[np.floating], path: Path, bins: int = 10
) -> None:
    """Write the reliability diagram of the positive class, with the number of images per bin below it.

    The title gives the expected calibration error.

    Args:
        labels: (N,) bool or int, 1 for the positive class.
        probability: (N,) float, 0 to 1, of the positive class.
        bins: number of bins of equal width; each is drawn at the mean of its probabilities.
    """
    is_positive, predicted = np.asarray(labels, float), np.asarray(probability, float)
    error = expected_calibration_error(is_positive, predicted, bins)
    index = np.minimum((predicted * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = counts > 0
    observed, expected = (
        np.bincount(index, weights=values, minlength=bins)[filled] / counts[filled]
        for values in (is_positive, predicted)
    )
    figure = _new_figure(4.8, 5.8)
    diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    _label_axes(diagram, "", "observed frequency")
    diagram.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1)
    diagram.plot(expected, observed, color=SERIES[0], marker="o", markersize=5, **ON_THE_FRAME)
    diagram.set(xlim=(0, 1), ylim=(0, 1))
    diagram.set_title(f"ECE {error:.3f} ({bins} bins, n = {is_positive.size})", fontsize=11, pad=8)
    _label_axes(histogram, "predicted probability", "images")
    histogram.bar((np.arange(bins) + 0.5) / bins, counts, width=0.92 / bins, color=SERIES[0])
    histogram.set_ylim(0, 1.08 * max(counts.max(), 1))
    histogram.grid(visible=False, axis="x")
    histogram.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    figure.align_ylabels()
    _save(figure, path)


def contact_sheet(mistakes: Sequence[tuple[Path, str, str, float]], path: Path, columns: int = 6) -> None:
    """Write thumbnails of mistakes, the most confident first, with both labels and the file name.

    Args:
        mistakes: (file, true label, predicted label, confidence 0 to 1) in any order. All are drawn, so the
            caller decides how many; none gives an image that says so. A file that can no longer be read
            gets a grey tile.
        columns: thumbnails in a row, 1 or more.
    """
    side, gap, points = 1.8, 0.15, 8  # inches, inches, font size
    limit = int(side / (points * CHARACTER_INCHES))
    ranked = sorted(mistakes, key=lambda mistake: -mistake[3])
    too_wide = any(len(f"{true} → {predicted} 0.00") > limit for _, true, predicted, _ in ranked)
    arrow, lines = (" →\n", 3) if too_wide else (" → ", 2)
    columns = max(min(columns, len(ranked)), 1)
    pitch_x, pitch_y = side + gap, side + gap + lines * points * 1.4 / 72
    width, height = columns * pitch_x, -(-len(ranked) // columns) * pitch_y
    figure = _new_figure(width, height or 1.0)
    figure.set_layout_engine("none")
    if not ranked:
        figure.text(0.5, 0.5, "\nNo mistakes: every image was classified correctly.\n", ha="center", va="center")
    for index, (file, true, predicted, confidence) in enumerate(ranked):
        left, bottom = index % columns * pitch_x, height - index // columns * pitch_y - side
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        axes.set_axis_off()
        try:
            axes.imshow(load_pixels(file, round(side * DPI)))
        except ImageError:
            axes.imshow(np.full((1, 1, 3), 224, np.uint8))
        labels = f"{_shorten(true, limit - 2)}{arrow}{_shorten(predicted, limit - 5)} {confidence:.2f}"
        style: dict[str, Any] = {"va": "top", "fontsize": points, "linespacing": 1.25, "parse_math": False}
        axes.text(0, -0.03, f"{labels}\n{_shorten(file.name, limit)}", transform=axes.transAxes, **style)
    _save(figure, path)


def _new_figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _label_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)


def _shorten(text: str, limit: int) -> str:
    # File and folder names that are not valid UTF-8 hold surrogates, which the font code refuses.
    text = text.encode(errors="replace").decode()
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def _save(figure: Figure, path: Path) -> None:
    with atomic.replacing(path) as stream:
        figure.savefig(stream, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
