"""Whether all sites compute with the same numbers, which each of them has found by itself from the opened sums."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedscgen._types import WireFormatError
from fedscgen.federation._meta import SKETCH, check_answer
from fedscgen.federation._transport import SiteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fedscgen._types import Message
    from fedscgen.federation._program import Task

_TOLERANCE = 1e-3  # far above rounding, far below a direction that points the other way
_PERIOD = 4096  # of the direction's values; products this short leave BLAS's threads asleep
_FORMAT = "{:+.8e}"  # of one length, whatever the value


def add_sketch(answer: Message, task: Task) -> Message:
    """A site's answer, with a sketch of what it was computed with.

    It tells nothing of the site: whoever knows the opened sums can compute it.
    """
    return replace(answer, meta={**answer.meta, SKETCH: [_FORMAT.format(value) for value in sketch(task)]})


def check_site(site: str, question: Message, answer: Message, own_sketch: Callable[[], list[float] | None]) -> None:
    """Refuse a site's answer that is none, or that it has computed with other numbers than the task's.

    Raises
    ------
    SiteError
        It doesn't belong to the question; or the numbers differ by more than rounding, so that a sum with it would be
        of no use.
    """
    try:
        check_answer(question, answer)
    except WireFormatError as error:
        raise SiteError(f"site {site!r} answered with {error}") from error
    given = answer.meta.get(SKETCH)
    own = None if given is None else own_sketch()
    if given is None or own is None:
        return
    if not np.allclose([float(value) for value in given], own, rtol=_TOLERANCE, atol=_TOLERANCE * own[0]):
        raise SiteError(
            f"site {site!r} has found other numbers for {question.kind!r} than the coordinator, from the same sums: "
            "use the same versions of this package, numpy and torch everywhere; on unlike processors choose fewer "
            "components (n_latent), as those that explain equally much have no direction of their own"
        )


def sketch(task: Task) -> list[float]:
    """The norm of a task's arrays, and their projection on a fixed direction."""
    square = projection = 0.0
    for array in _arrays_of(task):
        values = np.ravel(array)
        direction = np.cos(np.arange(_PERIOD)).astype(values.dtype)  # a copy of weights would take longer than the rest
        whole = values.size // _PERIOD * _PERIOD
        rows, rest = values[:whole].reshape(-1, _PERIOD), values[whole:]
        square += float(np.vecdot(rows, rows).sum(dtype=np.float64) + rest @ rest)
        projection += float(np.vecdot(rows, direction).sum(dtype=np.float64) + rest @ direction[: rest.size])
    return [square**0.5, projection]


def _arrays_of(task: Task) -> Iterator[np.ndarray]:
    yield from (task.arrays[name] for name in sorted(task.arrays))
    if task.question is not None and task.question.landmarks is not None:
        yield task.question.landmarks.positions
