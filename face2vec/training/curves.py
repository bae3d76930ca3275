"""The curves of a training, as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

from face2vec.errors import MissingExtraError

MEASURED = ("cosine", "tar", "active")
LABELS = {
    "cosine": "cosine to the teacher, held-out faces",
    "tar": "TAR at FAR 1e-3, held-out people",
    "active": "share of active triplets",
}


def plot(table: Path) -> Path:
    """Draw the losses and the figures of a ``curves.csv`` into a PNG beside it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingExtraError("the plot of a training", "matplotlib", "train") from error
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    epochs = [int(row["epoch"]) for row in rows]
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, measured = figure.subplots(1, 2)
    for name in rows[0]:
        if name in ("epoch", "step", "rate"):
            continue
        axes = measured if name in MEASURED else losses
        values = [float(row[name]) for row in rows]
        axes.plot(epochs, values, marker=".", label=LABELS.get(name, name))
    losses.set(xlabel="epoch", title="losses, training faces", ylim=(0, None))
    measured.set(xlabel="epoch", title="measured", ylim=(0, 1))
    for axes in (losses, measured):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    path = table.with_suffix(".png")
    figure.savefig(path, dpi=120)
    return path
