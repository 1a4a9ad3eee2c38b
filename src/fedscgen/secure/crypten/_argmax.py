"""The secure arg-max, as the compute parties run it together on crypten's shared tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedscgen.secure._keys import KEY_LENGTH
from fedscgen.secure.crypten._dealer import Needs, correct, expand

if TYPE_CHECKING:
    from collections.abc import Sequence


class DealtNumbers:
    """A party's random numbers, in the form of a crypten tuple provider. None is used twice.

    Parameters
    ----------
    dealt
        What the dealer sealed for this party.
    needs
        How much it covers.
    """

    def __init__(self, dealt: bytes, needs: Needs) -> None:
        drawn = expand(dealt[:KEY_LENGTH], needs)
        if len(dealt) > KEY_LENGTH:
            correct(drawn, dealt[KEY_LENGTH:])
        self._left = {name: torch.from_numpy(words.view(np.int64)) for name, words in drawn.items()}

    def generate_additive_triple(
        self, size_a: torch.Size, size_b: torch.Size, operation: str, device: object = None
    ) -> list[Any]:
        """Shares of a, b and c = a * b."""
        from crypten.mpc.primitives import ArithmeticSharedTensor

        if operation != "mul" or size_a != size_b:
            raise NotImplementedError(f"{operation} of sizes {tuple(size_a)} and {tuple(size_b)} is not dealt for")
        return [ArithmeticSharedTensor.from_shares(self._take(name, size_a), precision=0) for name in "abc"]

    def generate_binary_triple(self, size_x: torch.Size, size_y: torch.Size, device: object = None) -> list[Any]:
        """Shares of x, y and z = x & y."""
        from crypten.mpc.primitives import BinarySharedTensor

        if size_x != size_y:
            raise NotImplementedError(f"and of sizes {tuple(size_x)} and {tuple(size_y)} is not dealt for")
        return [BinarySharedTensor.from_shares(self._take(name, size_x)) for name in "xyz"]

    def B2A_rng(self, size: torch.Size, device: object = None) -> tuple[Any, Any]:
        """Shares of the same random bits by sum and by exclusive or."""
        from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor

        by_sum = ArithmeticSharedTensor.from_shares(self._take("sum", size), precision=0)
        return by_sum, BinarySharedTensor.from_shares(self._take("bit", size))

    def _take(self, name: str, size: torch.Size) -> torch.Tensor:
        n_words = size.numel()
        if n_words > self._left[name].numel():
            raise RuntimeError(f"{n_words} random numbers {name!r} are needed, {self._left[name].numel()} are left")
        taken, self._left[name] = self._left[name][:n_words], self._left[name][n_words:]
        return taken.reshape(size)


def to_tensor(words: np.ndarray | torch.Tensor) -> Any:
    """Make a crypten tensor of this party's share of integers."""
    from crypten.mpc.primitives import ArithmeticSharedTensor

    share = torch.from_numpy(words.view(np.int64)) if isinstance(words, np.ndarray) else words
    return ArithmeticSharedTensor.from_shares(share, precision=0)


def select(shares: Sequence[np.ndarray], n_keys: int, n_dimensions: int) -> Any:
    """Find, for each key, the site whose key is largest, and share its values anew; nothing is opened.

    Everything is an integer: no product needs crypten's probabilistic truncation.

    Parameters
    ----------
    shares
        This party's share of each site's ``n_keys`` keys, followed by its values in fixed point.
    n_keys, n_dimensions
        How many keys there are, and how many values go with each.

    Returns
    -------
    A shared tensor of shape ``(n_keys, n_dimensions)``.
    """
    stacked = torch.from_numpy(np.stack(shares).view(np.int64))
    keys = stacked[:, :n_keys]  # (S, K)
    values = stacked[:, n_keys:].reshape(len(shares), n_keys, n_dimensions)
    selected = _multiply_all(_compare(keys))  # (S, K)
    chosen = to_tensor(selected.unsqueeze(-1).expand(values.shape).clone()) * to_tensor(values)
    return to_tensor(chosen.share.sum(dim=0))


def _compare(keys: torch.Tensor) -> torch.Tensor:
    """Compare all sites: S - 1 shared bits each, whether it wins against each other site; the first of equals does.

    Shape ``(S - 1, S, K)``.
    """
    from crypten.mpc import MPCTensor

    n_sites = len(keys)
    first, second = torch.triu_indices(n_sites, n_sites, offset=1)
    later_wins = (MPCTensor.from_shares(keys[first] - keys[second], precision=0) < 0).share  # (pairs, K)
    won = torch.empty(n_sites, n_sites, keys.shape[1], dtype=torch.int64)
    won[second, first] = later_wins
    won[first, second] = (1 - to_tensor(later_wins)).share
    opponents = [[other for other in range(n_sites) if other != site] for site in range(n_sites)]
    return torch.stack([won[site, others] for site, others in enumerate(opponents)], dim=1)


def _multiply_all(factors: torch.Tensor) -> torch.Tensor:
    """Multiply shares along the first axis, in a logarithmic number of steps."""
    while len(factors) > 1:
        half = len(factors) // 2
        left, right, rest = torch.split(factors, [half, half, len(factors) % 2])
        factors = torch.cat([(to_tensor(left) * to_tensor(right)).share, rest])
    return factors[0]
