"""What every figure of a result does alike: axes to draw on, then ``show`` and ``save``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes


def take_axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Axes, bool]:
    """Axes to draw on, and whether they are new; ``size`` of a new figure is in inches."""
    if ax is not None:
        return ax, False
    from matplotlib import pyplot as plt

    _, new = plt.subplots(figsize=size, layout="constrained")
    return new, True


def name_above(ax: Axes) -> None:
    """Name what is drawn above the axes, where nothing lies under the names."""
    ax.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def finish(ax: Axes, own: bool, show: bool | None, save: str | Path | None) -> Axes | None:
    """Save and show the figure as is asked; the axes, unless it is shown."""
    if save is not None:
        from matplotlib.figure import Figure

        figure = ax.figure
        while not isinstance(figure, Figure):  # of axes in a part of a figure
            figure = figure.figure
        figure.savefig(save, bbox_inches="tight")
    if show or (show is None and own and save is None):
        from matplotlib import pyplot as plt

        plt.show()
        return None
    return ax
