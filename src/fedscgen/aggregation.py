"""Weighted means over named arrays, and the one place where BatchNorm is decided.

Floating-point arrays alone take part: integer buffers (``num_batches_tracked``) never leave a site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from fedscgen._types import check_choice

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from fedscgen._types import ClientUpdate, NamedArrays

Strategy = Literal["fedavg", "weighted_fedavg"]
BatchNormPolicy = Literal["pooled", "local", "averaged"]
"""What becomes of BatchNorm statistics: see :func:`weights_for_site`, :func:`from_sums`, :func:`policy_of_result`."""

OptimizerKind = Literal["average", "momentum", "adam"]

_MOMENTUM = 0.9
_BETA1, _BETA2, _ADAPTIVITY, _SERVER_LR = 0.9, 0.99, 1e-3, 1e-2

_MEAN, _VAR = ".running_mean", ".running_var"
_TINY = 1e-12
_CHUNK = 2**13  # stays in cache, and leaves BLAS's threads asleep: they would wait busily beside the network's
_SAME_EVERYWHERE = "train every site from the same settings and genes"
_SLACK = 1e-3  # far above what fixed point and float32 round


def aggregate(
    updates: Sequence[ClientUpdate], strategy: Strategy = "weighted_fedavg", batchnorm: BatchNormPolicy = "pooled"
) -> NamedArrays:
    """Average the sites' weights in the clear.

    Parameters
    ----------
    updates
        One per site, all with the same names and shapes.
    strategy
        ``"fedavg"`` weighs every site alike, ``"weighted_fedavg"`` by its cells
        (McMahan et al. 2017, algorithm 1).
    batchnorm
        As :func:`from_sums` takes it.

    Raises
    ------
    ValueError
        No update, unknown strategy, or an update that :func:`check_update` refuses.
    """
    if not updates:
        raise ValueError("there is no update to aggregate: pass at least one ClientUpdate")
    for position, update in enumerate(updates):
        check_update(update.weights, updates[0].weights, who=f"update {position}")
    shares = [site_weight(update.n_cells, strategy) for update in updates]
    forms = (to_summable(update.weights, batchnorm) for update in updates)  # one at a time: each is a whole network
    summed = weighted_sum(zip(forms, shares, strict=True))
    return from_sums(summed, sum(shares), like=updates[0].weights, batchnorm=batchnorm)


def site_weight(n_cells: int, strategy: Strategy) -> float:
    """How much a site of ``n_cells`` counts in the average."""
    check_choice(strategy, Strategy, "strategy")
    return float(n_cells) if strategy == "weighted_fedavg" else 1.0


def weighted_sum(terms: Iterable[tuple[Mapping[str, np.ndarray], float]]) -> NamedArrays:
    """Sum named arrays in float64, each times its share; no term is held longer than it takes to add it."""
    total: NamedArrays = {}
    for term, share in terms:
        for name, array in term.items():
            scaled = np.asarray(np.multiply(array, share, dtype=np.float64))
            total[name] = np.add(total[name], scaled, out=total[name]) if name in total else scaled
    return total


def to_summable(weights: Mapping[str, np.ndarray], batchnorm: BatchNormPolicy = "pooled") -> NamedArrays:
    """Replace each running variance by the second moment, the form in which sites can be summed.

    In float64, so that going back for a single site gives the variance it began with. With ``"averaged"`` the variances
    stay: it is they that are averaged.

    Raises
    ------
    ValueError
        There is a running variance without its running mean; the message names both.
    """
    if batchnorm == "averaged":
        return dict(weights)
    for name in weights:
        if name.endswith(_VAR) and _mean_of(name) not in weights:
            raise ValueError(
                f"{name} is a running variance without {_mean_of(name)}, which pooling it needs: "
                "add that, or choose another name"
            )
    return {
        name: _second_moment(array, weights[_mean_of(name)]) if name.endswith(_VAR) else array
        for name, array in weights.items()
    }


def from_sums(
    sums: Mapping[str, np.ndarray],
    total: float,
    *,
    like: Mapping[str, np.ndarray] | None = None,
    batchnorm: BatchNormPolicy = "pooled",
) -> NamedArrays:
    """Turn weighted sums of :func:`to_summable` arrays into the pooled weights, in float32.

    BatchNorm variances follow from the law of total variance: the mean of the sites' variances plus the variance of
    the sites' means. With ``"averaged"`` they are the mean of the sites' variances alone, as published (Bakhtiari et
    al. 2025). ``like`` gives the order of names.
    """
    return {name: _divide(name, sums, total, batchnorm) for name in (like if like is not None else sums)}


def _divide(name: str, sums: Mapping[str, np.ndarray], total: float, batchnorm: BatchNormPolicy) -> np.ndarray:
    """One pooled array, in float32. Of large ones there is never a copy in float64."""
    if not name.endswith(_VAR):
        pooled = np.empty(sums[name].shape, dtype=np.float32)
        np.divide(sums[name], total, out=pooled, dtype=np.float64, casting="same_kind")
        return pooled
    of_means = 0.0 if batchnorm == "averaged" else (sums[_mean_of(name)] / total) ** 2
    variance = np.asarray(sums[name] / total - of_means)
    variance[(variance < 0) & np.isfinite(variance)] = 0.0  # rounded sums may land an error below
    return variance.astype(np.float32)


class ServerOptimizer:
    """Takes the sites' average as a direction, and steps from the last weights (FedOpt: Reddi et al. 2021).

    Parameters
    ----------
    kind
        ``"average"`` goes all the way to the average; ``"momentum"`` (FedAvgM: Hsu et al. 2019) goes on in former
        rounds' directions, 0.9 of them each round; ``"adam"`` (FedAdam) scales every parameter's step by its former
        ones, at a learning rate of 0.01. BatchNorm statistics are always averaged.
    """

    def __init__(self, kind: OptimizerKind) -> None:
        check_choice(kind, OptimizerKind, "server optimizer")
        self._kind = kind
        self._n_steps = 0
        self._first: NamedArrays = {}
        self._second: NamedArrays = {}

    @property
    def most_steps(self) -> float:
        """How many averages a step can add up to: those of former rounds go on in it, except with ``"average"``."""
        return 1.0 if self._kind == "average" else 1 / (1 - _MOMENTUM)

    def step(self, weights: Mapping[str, np.ndarray], average: Mapping[str, np.ndarray]) -> NamedArrays:
        """Weights to go on from, in float32, given the last ones and the average of what sites made of them."""
        self._n_steps += 1
        return {
            name: mean if self._is_averaged(name) else self._take_step(name, weights, mean)
            for name, mean in average.items()
        }

    def _is_averaged(self, name: str) -> bool:
        return self._kind == "average" or name.endswith((_MEAN, _VAR))

    @property
    def state(self) -> tuple[int, NamedArrays, NamedArrays]:
        """What the next step builds on besides the weights: steps so far, and first and second moments by name.

        Set it to go on where an optimizer of the same kind was.
        """
        return self._n_steps, dict(self._first), dict(self._second)

    @state.setter
    def state(self, state: tuple[int, NamedArrays, NamedArrays]) -> None:
        self._n_steps, self._first, self._second = state

    def _take_step(self, name: str, weights: Mapping[str, np.ndarray], mean: np.ndarray) -> np.ndarray:
        change = mean - weights[name]
        if self._kind == "momentum":
            self._first[name] = _MOMENTUM * self._first.get(name, 0.0) + change
            return weights[name] + self._first[name]
        self._first[name] = _BETA1 * self._first.get(name, 0.0) + (1 - _BETA1) * change
        self._second[name] = _BETA2 * self._second.get(name, 0.0) + (1 - _BETA2) * change**2
        first = self._first[name] / (1 - _BETA1**self._n_steps)
        second = self._second[name] / (1 - _BETA2**self._n_steps)
        return (weights[name] + _SERVER_LR * first / (np.sqrt(second) + _ADAPTIVITY)).astype(np.float32)


def weights_for_site(
    weights: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], policy: BatchNormPolicy
) -> NamedArrays:
    """What a site loads when the server's ``weights`` arrive.

    ``"pooled"`` takes all of them; ``"local"`` (SiloBN: Andreux et al. 2020) and ``"averaged"`` keep the site's ``own``
    BatchNorm statistics and take the parameters.
    """
    check_choice(policy, BatchNormPolicy, "BatchNorm policy")
    if policy == "pooled":
        return dict(weights)
    return {name: own[name] if name.endswith((_MEAN, _VAR)) else array for name, array in weights.items()}


def policy_of_result(policy: BatchNormPolicy) -> BatchNormPolicy:
    """By which policy sites load the weights that training has ended with.

    With ``"averaged"`` every site trains on with its own statistics, and takes the average for references and
    correction.
    """
    return "pooled" if policy == "averaged" else policy


def change_norm(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> float:
    """L2 norm of what has changed in the parameters, as a share of the norm that they had; BatchNorm's don't count."""
    names = [name for name in before if not name.endswith((_MEAN, _VAR))]
    changed = sum(_sum_squares(after[n], less=before[n]) for n in names)
    norm = sum(_sum_squares(before[n]) for n in names)
    return float(np.sqrt(changed / max(norm, _TINY)))


def _sum_squares(array: np.ndarray, less: np.ndarray | None = None) -> float:
    """Squares of an array, or of what it differs from another by, in pieces that stay in cache."""
    total, values = 0.0, array.reshape(-1)
    others = None if less is None else less.reshape(-1)
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        part = part if others is None else part - others[start : start + _CHUNK]
        total += float(part @ part)
    return total


def statistics_of(summable: Mapping[str, np.ndarray]) -> NamedArrays:
    """The BatchNorm statistics among a site's arrays, as :func:`to_summable` gives them."""
    return {name: np.asarray(array) for name, array in summable.items() if name.endswith((_MEAN, _VAR))}


def find_impossible_statistics(
    own: Mapping[str, np.ndarray],
    share: float,
    means: Mapping[str, np.ndarray],
    batchnorm: BatchNormPolicy = "pooled",
) -> str:
    r"""Name of a pooled running variance below what one site's part makes of it; empty if there is none.

    With the site's share :math:`s`, its mean :math:`m_k` and variance :math:`v_k`, the law of total variance has
    :math:`v \ge s (v_k + (m_k - m)^2)` for the pooled ones, whatever the other sites contribute; with ``"averaged"``
    it is :math:`v \ge s v_k`.

    Parameters
    ----------
    own
        The site's, as :func:`statistics_of` gives them.
    share
        Its weight in the sum, as a part of the summed weights.
    means
        What was opened, divided by the summed weights.
    batchnorm
        As :func:`from_sums` takes it.
    """
    for name in own:
        if not name.endswith(_VAR):
            continue
        least, variance = share * own[name], means[name]
        if batchnorm != "averaged":
            own_mean, mean = own[_mean_of(name)], means[_mean_of(name)]
            least = share * (own[name] - 2.0 * own_mean * mean + mean**2)
            variance = variance - mean**2
        if (variance * (1 + _SLACK) + _SLACK < least).any():
            return name
    return ""


def clip_change(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], bound: float | None
) -> Mapping[str, np.ndarray]:
    """What training has made of ``before``, its parameters brought back until :func:`change_norm` is at most ``bound``.

    ``None`` leaves them as they are. After the clipping of updates of McMahan et al. 2018, "Learning Differentially
    Private Recurrent Language Models", without the noise.
    """
    share = 0.0 if bound is None else change_norm(before, after)
    if bound is None or share <= bound:
        return after
    scale = np.float32(bound / share)
    return {
        name: array if name.endswith((_MEAN, _VAR)) else before[name] + scale * (array - before[name])
        for name, array in after.items()
    }


def check_names(
    names: Collection[str], expected: Mapping[str, np.ndarray], *, who: str, remedy: str = _SAME_EVERYWHERE
) -> None:
    """Refuse arrays of other names than the model's weights have.

    Raises
    ------
    ValueError
        It names ``who`` sent them, the names and the remedy.
    """
    differing = sorted(set(names) ^ expected.keys())
    if differing:
        raise ValueError(f"{who}: names differ from the model's: {', '.join(differing[:5])} on one side only; {remedy}")


def check_update(
    weights: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], *, who: str, remedy: str = _SAME_EVERYWHERE
) -> None:
    """Refuse weights of other names or shapes than the model's, or that hold NaN or inf.

    Raises
    ------
    ValueError
        As :func:`check_names`; or the message names the array.
    """
    check_names(weights, expected, who=who, remedy=remedy)
    for name, array in weights.items():
        if array.shape != expected[name].shape:
            raise ValueError(f"{who}: {name} has shape {array.shape}, expected {expected[name].shape}; {remedy}")
        if not np.isfinite(array).all():
            raise ValueError(
                f"{who}: {name} holds NaN or inf: training diverged there; lower the learning rate or check its data"
            )


def _mean_of(variance_name: str) -> str:
    return variance_name.removesuffix(_VAR) + _MEAN


def _second_moment(variance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return variance.astype(np.float64) + mean.astype(np.float64) ** 2
