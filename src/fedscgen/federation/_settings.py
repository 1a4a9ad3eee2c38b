"""What a federation agrees on before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedscgen._types import check_choice
from fedscgen.aggregation import BatchNormPolicy, Strategy
from fedscgen.correction import ReferenceKind


@dataclass(frozen=True)
class FederationSettings:
    """The server's settings; the defaults are the published ones (Bakhtiari et al. 2025).

    Parameters
    ----------
    n_rounds
        Rounds of training.
    n_epochs
        Epochs that every site trains in a round.
    lr
        Learning rate of Adam.
    batch_size
        Cells in a mini-batch.
    strategy
        ``"weighted_fedavg"`` weighs a site by its training cells, ``"fedavg"`` all alike.
    batchnorm
        ``"pooled"``: every site trains on with all sites' BatchNorm statistics; ``"local"``: with its own. The
        federation's model, which sites that join later get, has the pooled ones in either case.
    reference
        ``"dominant"``: the mean of the site with most cells of a type; ``"mean"``: the cell-weighted mean over the
        sites. ``None`` takes ``"dominant"`` wherever the aggregator finds it without showing counts, else ``"mean"``.
    early_stopping_patience
        Stop when the federation's validation loss has not improved for so many rounds, and go back to the best
        weights. ``None`` runs all rounds and keeps the last weights.
    seed
        Where every site's random numbers come from, together with its position among the sites.
    model
        Keyword arguments of :class:`~fedscgen.model.FedSCGEN`.

    Raises
    ------
    ValueError
        A value is out of range or no choice; the message names it.
    """

    n_rounds: int = 8
    n_epochs: int = 2
    lr: float = 1e-3
    batch_size: int = 50
    strategy: Strategy = "weighted_fedavg"
    batchnorm: BatchNormPolicy = "pooled"
    reference: ReferenceKind | None = None
    early_stopping_patience: int | None = None
    seed: int = 0
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("n_rounds", "n_epochs", "lr", "batch_size"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be above 0")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"early_stopping_patience={self.early_stopping_patience}: at least 1 round, or None")
        check_choice(self.strategy, Strategy, "strategy")
        check_choice(self.batchnorm, BatchNormPolicy, "BatchNorm policy")
        if self.reference is not None:
            check_choice(self.reference, ReferenceKind, "kind of reference")
