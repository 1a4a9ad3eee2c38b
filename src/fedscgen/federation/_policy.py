"""What a site decides for itself: with whom it sums, and under which names its cell types travel."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from fedscgen._options import check_fields
from fedscgen._types import check_choice
from fedscgen.federation._plan import Workflow
from fedscgen.secure import find_aggregator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fedscgen.federation._settings import GenesKind

_HASH_LENGTH = 32


class PolicyError(RuntimeError):
    """A federation asks for what a site's policy doesn't allow. The message holds nothing of the site's data."""


@dataclass(frozen=True)
class SitePolicy:
    """What a site agrees to send.

    Parameters
    ----------
    aggregators
        Ways of summing that the site takes part in: ``"masked"``, ``"crypten"``, ``"plain"`` or another registered
        name. One that shows the coordinator all that the site contributes, as ``"plain"`` does, needs
        ``reveal_counts`` too.
    reveal_counts
        Whether the coordinator may see how many cells of each type the site has.
    min_sites
        Fewest sites in any sum that the site contributes to. ``None``: all sites of the run, so that none may drop out.
        Fewer let training go on without a site, and show the coordinator, from one round to the next, what the sum is
        without it.
    init_models
        SHA-256 of the weights that training may begin with, where they come from a file of the coordinator's. Weights
        that somebody has made up can single out cells.

    max_sums
        Sums that the same cells contribute to, over all runs; a run of the default settings takes 28.
    other_sites
        Whether cells that have contributed to sums over some sites may do so over others: the difference of the two
        shows the part of single sites, such as of one that has joined.
    max_share
        Largest share of all announced cells that another site may have. What a site announces is all that bounds how
        much it counts, and one with most of the cells decides by itself what all learn.
    gene_union
        Whether the site takes part on genes that not all sites hold. Sums of those that it alone has are its own.
    few_cells
        Whether the site takes part though all sites together may have fewer training cells than it has genes, and more
        than half as many sums of whole cells would be open, over all runs: single cells can be computed from them.
    workflows
        What the site takes part in: ``"training"``, ``"correction"`` of its cells by a trained model, ``"check"``, in
        which it tells before any training what names it uses and what it would refuse.

    Raises
    ------
    ValueError
        A value is of the wrong type, no or an unknown aggregator is named, or ``min_sites`` or ``max_sums`` is below 1.
    """

    aggregators: tuple[str, ...] = ("masked", "crypten")
    reveal_counts: bool = False
    min_sites: int | None = None
    init_models: tuple[str, ...] = ()
    max_sums: int = 1000
    other_sites: bool = False
    max_share: float = 0.99
    gene_union: bool = False
    few_cells: bool = False
    workflows: tuple[str, ...] = get_args(Workflow)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.aggregators:
            raise ValueError("aggregators=(): name at least one, or the site can take part in nothing")
        for aggregator in self.aggregators:
            find_aggregator(aggregator)
        for workflow in self.workflows:
            check_choice(workflow, Workflow, "workflow")
        if self.min_sites is not None and self.min_sites < 1:
            raise ValueError(f"min_sites={self.min_sites}: at least 1")
        if self.max_sums < 1:
            raise ValueError(f"max_sums={self.max_sums}: at least 1")
        if not 0 < self.max_share <= 1:
            raise ValueError(f"max_share={self.max_share}: above 0, and at most 1")

    def check(self, aggregator: str, *, reveals_counts: bool, n_sites: int) -> None:
        """Refuse what the site doesn't agree to.

        Parameters
        ----------
        aggregator
            How the federation sums.
        reveals_counts
            Whether the coordinator says that it will see the site's counts. With an aggregator that shows each site's
            terms it does in any case.
        n_sites
            Sites that take part.

        Raises
        ------
        PolicyError
            The policy doesn't allow it; the message may be sent to the coordinator.
        """
        if aggregator not in self.aggregators:
            allowed = " or ".join(map(repr, self.aggregators))
            raise _refusal(f"sum with {aggregator!r}", f"only {allowed}", "aggregators")
        if (reveals_counts or find_aggregator(aggregator).shows_terms) and not self.reveal_counts:
            raise _refusal("see the site's counts of cells", "no one to see them", "reveal_counts")
        if self.min_sites is not None and n_sites < self.min_sites:
            raise _refusal(f"sum over n_sites={n_sites}", f"sums over {self.min_sites} or more sites only", "min_sites")

    def check_workflow(self, workflow: str) -> None:
        """Refuse a run that does what the site takes no part in.

        Raises
        ------
        PolicyError
            It isn't among ``workflows``.
        """
        if workflow not in self.workflows:
            allowed = " and ".join(self.workflows) or "nothing"
            raise _refusal(f"run a {workflow}", f"{allowed} only", "workflows")

    def check_weights(self, init_model: str | None) -> None:
        """Refuse weights to begin with that the site's operator has not allowed.

        Parameters
        ----------
        init_model
            SHA-256 of the weights, if there are any.

        Raises
        ------
        PolicyError
            They aren't among ``init_models``.
        """
        if init_model is not None and init_model not in self.init_models:
            raise _refusal(
                f"begin with weights of SHA-256 {init_model}", "no weights that it doesn't know", "init_models"
            )

    def check_genes(self, kind: GenesKind) -> None:
        """Refuse genes that not all sites hold, unless the site's operator has allowed them.

        Raises
        ------
        PolicyError
            They are the union of the sites'.
        """
        if kind == "union" and not self.gene_union:
            raise _refusal(
                "work on genes that this site alone may have", "those that all sites hold only", "gene_union"
            )

    def check_sizes(self, others: Mapping[str, int], own: int) -> None:
        """Refuse a run in which another site has nearly all cells.

        Parameters
        ----------
        others
            Cells that each other site has announced, by name.
        own
            Those that this site has.

        Raises
        ------
        PolicyError
            One has more than ``max_share`` of them.
        """
        total = own + sum(others.values())
        for site, n_cells in others.items():
            if n_cells > self.max_share * total:
                asked = f"sum with site {site!r}, which announces {n_cells / total:.1%} of all cells"
                raise _refusal(asked, f"no other site more than {self.max_share:.1%}", "max_share")

    def least_of(self, n_sites: int) -> int:
        """Fewest sites in any sum of a run of so many."""
        return n_sites if self.min_sites is None else self.min_sites


def _refusal(asked: str, allowed: str, field: str) -> PolicyError:
    return PolicyError(
        f"the federation wants to {asked}, but the site allows {allowed}: "
        f"to take part, the site itself must change {field} in its policy"
    )


class LabelNames:
    """Translates between a site's own names of cell types and those on the wire.

    Without a salt they are the same. With one, a type travels as the HMAC-SHA256 of its name with the salt as key, of
    which the first 32 hexadecimal digits are kept: 128 bits, so that no two names meet by chance.

    Parameters
    ----------
    salt
        A secret that the sites share. None: names travel as they are.

    Raises
    ------
    ValueError
        The salt is empty.
    """

    def __init__(self, salt: str | None) -> None:
        if salt == "":
            raise ValueError("label_salt='': anyone could compute these hashes; share a long secret, or pass None")
        self._key = None if salt is None else salt.encode()

    @property
    def are_hashed(self) -> bool:
        """Whether names on the wire differ from the site's own."""
        return self._key is not None

    def on_the_wire(self, name: str) -> str:
        """What the federation calls a type of this site."""
        return name if self._key is None else hmac.new(self._key, name.encode(), "sha256").hexdigest()[:_HASH_LENGTH]

    def at_the_site(self, labels: Iterable[str], known: Iterable[str]) -> list[str]:
        """What the site calls the federation's types: its own name of those it knows, of others what was sent."""
        own = {self.on_the_wire(name): name for name in known}
        return [own.get(label, label) for label in labels]
