"""What a run will send, from its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.federation import find_model
from fedscgen.principal_components import list_widths

if TYPE_CHECKING:
    from fedscgen.federation import FederationSettings

# of runs of the default network, as their ledgers have them
_VALUES_TO_CHOOSE = 3  # of each gene in common
_QUESTIONS_ABOUT_LANDMARKS, _BYTES_PER_LANDMARK_SUM = 8, 5500
_SUM_BYTES = 8  # of a value that is opened, or masked in the 64-bit ring
_OWN_BYTES = 4  # of a value that is sent as it is
_KNOWN = ("masked", "plain")
_ONCE = 4  # messages of a site each way that aren't about a sum: to join, to describe, to agree and to end
_KEYS_AND_SHARES, _CONFIRMATION = 3, 1  # further messages of a sum from which a site may be missing
_BYTES_PER_GENE_NAME = 10
_FEW_GENES = (100, 200)
_AXES = "linear_path.axes"


@dataclass(frozen=True)
class Cost:
    """What one site sends and receives in a whole run.

    Parameters
    ----------
    n_sums
        Sums that are opened.
    n_messages
        That the site sends, the first by which it joins; it receives as many.
    sent, received
        Bytes.
    per_round
        Bytes that the site sends in a round of training.
    n_parameters
        Of the model.
    """

    n_sums: int
    n_messages: int
    sent: int
    received: int
    per_round: int
    n_parameters: int


def expect_cost(settings: FederationSettings, n_genes: int, secure: str = "masked") -> Cost:
    """Expect what a run of the package's own model costs a site; what runs measured is met within a tenth.

    Parameters
    ----------
    settings
        What the sites do alike.
    n_genes
        That the sites have in common, of which the settings may choose some.
    secure
        ``"masked"`` or ``"plain"``.

    Raises
    ------
    ValueError
        It isn't known of this aggregator.
    """
    if secure not in _KNOWN:
        raise ValueError(f"secure={secure!r}: what a run costs is known of {', '.join(_KNOWN)}")
    n_chosen = settings.count_genes(n_genes)
    chooses = n_chosen < n_genes
    n_parameters = _count_parameters(settings, n_chosen)
    directions = _count_directions(settings, n_chosen)
    before = sum(1 + width for width in directions) * n_chosen * _SUM_BYTES
    before += chooses * _VALUES_TO_CHOOSE * n_genes * _SUM_BYTES
    landmarks = _QUESTIONS_ABOUT_LANDMARKS * _BYTES_PER_LANDMARK_SUM
    names = _BYTES_PER_GENE_NAME * n_genes
    per_round = n_parameters * (_OWN_BYTES if secure == "plain" else _SUM_BYTES)
    about_references = _count_about_references(settings)
    groups = [int(chooses), len(directions), about_references]
    n_sums = sum(groups) + settings.n_rounds
    return Cost(
        n_sums,
        _ONCE + n_sums + (_count_for_masks(settings, groups) if secure == "masked" else 0),
        names + before + landmarks + settings.n_rounds * per_round,
        names + before + landmarks + settings.n_rounds * n_parameters * _SUM_BYTES,
        per_round,
        n_parameters,
    )


def _count_about_references(settings: FederationSettings) -> int:
    """Sums after training: who holds which type, and then what the references are made of."""
    return 1 + (_QUESTIONS_ABOUT_LANDMARKS if settings.reference == "landmarks" else 1)


def _count_for_masks(settings: FederationSettings, groups: list[int]) -> int:
    """Messages for keys and shares: none where no site may be missing from a sum, as keys come with others.

    Else each round of training takes all of them, and of a group of sums the first, whose next one needs keys.
    """
    if settings.min_sites is None:
        return 0
    of_rounds = settings.n_rounds * (_KEYS_AND_SHARES + _CONFIRMATION)
    return of_rounds + sum(_KEYS_AND_SHARES + (n_sums > 1) for n_sums in groups if n_sums)


def _count_directions(settings: FederationSettings, n_genes: int) -> list[int]:
    """Along which a model with a linear path asks for second moments, sum by sum."""
    weights = find_model(settings.architecture).initial_weights(_FEW_GENES[0], 0, **settings.model)
    return list_widths(n_genes, len(weights[_AXES])) if _AXES in weights else []


def _count_parameters(settings: FederationSettings, n_genes: int) -> int:
    """Of the model, whose layers grow with the genes by as much for each."""
    model = find_model(settings.architecture)
    few = [sum(np.size(array) for array in model.initial_weights(n, 0, **settings.model).values()) for n in _FEW_GENES]
    per_gene = (few[1] - few[0]) // (_FEW_GENES[1] - _FEW_GENES[0])
    return int(few[0] + per_gene * (n_genes - _FEW_GENES[0]))
