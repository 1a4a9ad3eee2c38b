"""Named arrays as one vector of words, and back: the form in which contributions are masked or shared."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen.secure._aggregator import AggregationError
from fedscgen.secure._fixed_point import encode
from fedscgen.secure._threads import for_each

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen._types import Message, NamedArrays

Manifest = list[tuple[str, list[int]]]
"""Names and shapes, in the order in which the vector holds the arrays."""


def flatten(
    arrays: Mapping[str, np.ndarray], weight: float, *, precision: int, max_abs: float, n_more: int = 0
) -> tuple[np.ndarray, Manifest]:
    """Encode weight times each array, in order of name, and then the weight, as one vector of uint64.

    It has room at its end for ``n_more`` words, so that who adds some needn't copy it.

    Raises
    ------
    AggregationError
        A value is NaN, infinite or beyond ``max_abs``; the message names its array and the remedy.
    """
    manifest = [(name, list(np.shape(arrays[name]))) for name in sorted(arrays)]
    last = n_words(manifest)
    words = np.empty(last + 1 + n_more, dtype=np.uint64)
    encode(np.float64(weight), precision, "weight", max_abs=max_abs, out=words[last : last + 1].reshape(()))
    parts = unflatten(words, manifest)
    for_each(
        list(parts),
        lambda name: encode(arrays[name], precision, name, max_abs=max_abs, weight=weight, out=parts[name]),
    )
    return words, manifest


def n_words(manifest: Manifest) -> int:
    """Words that the arrays take, without the weight."""
    return sum(math.prod(shape) for _, shape in manifest)


def unflatten(values: np.ndarray, manifest: Manifest) -> NamedArrays:
    """Cut a vector into views of the manifest's names and shapes."""
    arrays, start = {}, 0
    for name, shape in manifest:
        arrays[name] = values[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    return arrays


def common_manifest(answers: Mapping[str, Message]) -> Manifest:
    """Names and shapes that all sites contribute, from the ``manifest`` in their answers' meta.

    Raises
    ------
    AggregationError
        A site has others than most; the message says which and how they differ.
    """
    manifests = {site: json.dumps(answer.meta.get("manifest")) for site, answer in answers.items()}
    ((most_common, _),) = Counter(manifests.values()).most_common(1)
    for site, manifest in manifests.items():
        if manifest != most_common:
            raise AggregationError(
                f"site {site!r} contributed {_difference(manifest, most_common)}: nothing was opened; "
                "run every site with the same settings and names"
            )
    if most_common == "null":
        raise AggregationError("no site contributed to this aggregator: give every site its contributor")
    return [(name, shape) for name, shape in json.loads(most_common)]


def common_entry(answers: Mapping[str, Message], name: str) -> Any:
    """What all sites say in their answers' meta of the terms on which they take part.

    Raises
    ------
    AggregationError
        They don't say the same: what they sent doesn't add up to anything.
    """
    told = {site: answer.meta.get(name) for site, answer in answers.items()}
    (one, first), *others = told.items()
    different = [site for site, other in others if other != first]
    if different:
        raise AggregationError(
            f"site {different[0]!r} takes part in the sum on other terms than {one!r}: plan, opened sums, "
            "keys, arrays or fractional bits differ; nothing was opened"
        )
    return first


def to_rows(items: Sequence[bytes], length: int) -> np.ndarray:
    """Byte strings of ``length`` each as the rows of a uint8 array."""
    return np.frombuffer(b"".join(items), dtype=np.uint8).reshape(len(items), length)


def from_rows(arrays: Mapping[str, np.ndarray], name: str, n_rows: int, length: int) -> list[bytes]:
    """Read what :func:`to_rows` made, of exactly this size.

    Raises
    ------
    ValueError
        The array is missing, or of another shape or dtype.
    """
    array = arrays.get(name)
    if array is None or array.dtype != np.uint8 or array.shape != (n_rows, length):
        found = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{name!r} is {found}, expected uint8 of shape {(n_rows, length)}")
    return [row.tobytes() for row in array]


def _difference(manifest: str, expected: str) -> str:
    """Say how a site's manifest differs from the others'."""
    if "null" in (manifest, expected):
        return "through another aggregator than the others"
    own, others = dict(json.loads(manifest)), dict(json.loads(expected))
    for name in sorted({*own, *others}):
        if own.get(name) != others.get(name):
            return f"{name!r} of shape {own.get(name, 'missing')}, the others {others.get(name, 'missing')}"
    return "the arrays in another order"
