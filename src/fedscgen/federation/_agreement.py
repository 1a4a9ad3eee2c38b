"""What the sites have in common: the genes and cell types of a federation, from what each site has described."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fedscgen._types import Message
from fedscgen.correction import FEWEST_HOLDERS, NoSharedLabelError, warn_of_lost_labels
from fedscgen.federation._labels import check_labels
from fedscgen.federation._models import find_model
from fedscgen.federation._plan import hash_json
from fedscgen.federation._protocol import DESCRIBE, SET_UP
from fedscgen.federation._transport import SiteError
from fedscgen.secure import PreparingAggregator

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Self

    import numpy as np

    from fedscgen.correction import ReferenceKind
    from fedscgen.federation._initial_model import InitialModel
    from fedscgen.federation._settings import FederationSettings, GenesKind
    from fedscgen.secure import Aggregator

logger = logging.getLogger(__name__)

_FEW_IN_COMMON = 0.2  # of the genes of the site with the fewest


@dataclass(frozen=True)
class Description:
    """What a site says of its cells before anything is computed.

    Parameters
    ----------
    genes
        Their names, in the site's order.
    labels
        Cell types of which the site has enough cells.
    hashed
        Whether these are keyed hashes.
    complete
        Whether every cell has a label.
    min_holders
        Fewest sites that a mean is to be opened of.
    n_cells_at_most
        A power of two that it has no more cells than, and more than half as many.
    introduction
        What the other sites need to know of it.
    n_sums
        Opened sums of this run that it knows of already; ``None`` in a run that is new to it.
    """

    genes: list[str]
    labels: list[str]
    hashed: bool
    complete: bool
    min_holders: int
    n_cells_at_most: int
    introduction: Mapping[str, str] = field(default_factory=dict)
    n_sums: int | None = None

    @classmethod
    def from_message(cls, message: Message) -> Self:
        """Read a site's answer."""
        return cls(**{name: message.meta[name] for name in cls.__dataclass_fields__ if name in message.meta})

    def to_message(self) -> Message:
        """The site's answer."""
        return Message(DESCRIBE, asdict(self))


@dataclass(frozen=True)
class SetUp:
    """What the sites have in common, as the coordinator tells each of them.

    Parameters
    ----------
    genes
        The model's, in its order.
    labels
        Cell types that may be asked for.
    min_holders
        Fewest sites that a mean is opened of.
    n_cells_at_most
        What each site has announced, by name.
    introductions
        What each site has shown for the others, by name; nothing where they needn't know each other.
    weights
        With which training begins, if they come from a file of the coordinator's.
    """

    genes: list[str]
    labels: list[str] = field(default_factory=list)
    min_holders: int = FEWEST_HOLDERS
    n_cells_at_most: Mapping[str, int] = field(default_factory=dict)
    introductions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls, described: Mapping[str, Description], settings: FederationSettings, init_model: InitialModel | None
    ) -> Self:
        """What these sites have in common.

        Raises
        ------
        NoSharedLabelError, ValueError
            They have no gene or, where one is needed, no cell type in common; or ``init_model`` doesn't fit.
        """
        genes = agree_on_genes({site: of.genes for site, of in described.items()}, settings.genes)
        if init_model is not None:
            genes = init_model.choose_genes(genes)
            model = find_model(settings.architecture)
            init_model.fit_to(model.initial_weights(len(genes), settings.find_seed(), **settings.model))
        return cls(
            genes,
            choose_labels(described, settings.reference, settings.unaligned_sites),
            max(of.min_holders for of in described.values()),
            {site: of.n_cells_at_most for site, of in described.items()},
            {site: of.introduction for site, of in described.items() if of.introduction},
            {} if init_model is None else init_model.weights,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what all sites must have been told alike."""
        return hash_json([self.genes, self.labels, self.min_holders, dict(self.n_cells_at_most)])

    @classmethod
    def from_message(cls, message: Message) -> Self:
        """Read what :meth:`to_message` wrote."""
        meta = message.meta
        genes, labels = ([str(name) for name in meta[key]] for key in ("genes", "labels"))
        sizes = {str(site): int(n_cells) for site, n_cells in meta["n_cells_at_most"].items()}
        return cls(genes, labels, int(meta["min_holders"]), sizes, meta["introductions"], message.arrays)

    def to_message(self, **more: Any) -> Message:
        """What every site is told."""
        meta = {name: value for name, value in vars(self).items() if name != "weights"}
        return Message(SET_UP, {**meta, **more}, self.weights)


def find_preparing(aggregator: Aggregator, settings: FederationSettings) -> PreparingAggregator | None:
    """The aggregator, if the sites can prepare its first sum, which then has to be over all of them."""
    return aggregator if settings.min_sites is None and isinstance(aggregator, PreparingAggregator) else None


def collect_sealed(answers: Mapping[str, Message], asked: Collection[str]) -> dict[str, str]:
    """What sites have sealed for others, by the site that it is for; nothing if one is gone, as all then begin anew.

    Raises
    ------
    SiteError
        A site has sealed something for a site that needs none, or for one for which another has.
    """
    sealed: dict[str, str] = {}
    for site, answer in answers.items():
        for peer, key in answer.meta["sealed"].items():
            if peer == site or peer in sealed or peer not in asked:
                raise SiteError(f"site {site!r} has sealed a key for {peer!r}, which another has done, or needs none")
            sealed[peer] = key
    return sealed if len(answers) == len(asked) else {}


def agree_on_genes(genes: Mapping[str, Sequence[str]], kind: GenesKind) -> list[str]:
    """The model's genes that count: those of the first site, then those that each further site adds.

    Parameters
    ----------
    genes
        Of each site, in the order of the sites.
    kind
        ``"intersection"``: genes that all sites hold count, ``"union"``: those that any site holds.

    Raises
    ------
    ValueError
        No gene is held by all sites or, for the union, a site shares none with any other.
    """
    held = Counter(name for names in genes.values() for name in names)  # in the order of first mention
    least = min(2, len(genes)) if kind == "union" else len(genes)
    apart = [site for site, names in genes.items() if not any(held[name] >= least for name in names)]
    if apart:
        who = "the sites share no gene" if len(apart) == len(genes) else f"site {apart[0]!r} shares no gene with others"
        examples = ", ".join(f"{site!r}: {names[0]!r}" for site, names in genes.items())
        raise ValueError(f"{who} (first of each: {examples}): use the same gene names everywhere")
    partial = sorted(name for name, n_sites in held.items() if n_sites < len(genes))
    if partial:
        fate = "zero where they are missing" if kind == "union" else "left out"
        logger.warning(
            "%d genes are not held by every site and %s (%s, ...)", len(partial), fate, ", ".join(partial[:5])
        )
    common = [name for name, n_sites in held.items() if n_sites == len(genes)]
    fewest = min(len(set(names)) for names in genes.values())
    if len(common) < _FEW_IN_COMMON * fewest:
        warnings.warn(
            f"the sites have only {len(common)} genes in common, and each holds {fewest} or more: are they named "
            "in the same way everywhere (symbols or Ensembl identifiers, with or without version, upper case)?",
            UserWarning,
            stacklevel=2,
        )
    return list(held) if kind == "union" else common


def check_reference(kind: ReferenceKind, aggregator: Aggregator) -> None:
    """Refuse references that the aggregator can't find, and warn of those that mislead.

    Raises
    ------
    ValueError
        ``"dominant"`` needs an aggregator that selects; the message names the remedy.
    """
    if kind != "landmarks":
        logger.warning(
            "reference=%r: two cell types whose references come of different sites end up apart by what differs "
            "between these sites: don't compare types, nor test genes between them, after this correction",
            kind,
        )
    if kind != "dominant" or aggregator.selects:
        return
    if aggregator.name == "masked":
        raise ValueError(
            "reference='dominant' would show every site's counts to the coordinator of a masked sum: "
            "use reference='landmarks' or 'mean', secure='crypten', or MaskedAggregator(reveal_keys=True)"
        )
    raise ValueError(
        f"reference='dominant' needs an aggregator that selects, and {aggregator.name!r} doesn't: "
        "use reference='landmarks' or 'mean', or an aggregator that does, such as secure='crypten'"
    )


def all_hash(hashed: Mapping[str, bool]) -> bool:
    """Whether the sites send keyed hashes for the names of their cell types.

    Raises
    ------
    ValueError
        Some do and some don't.
    """
    do, do_not = (", ".join(site for site in hashed if hashed[site] == whether) for whether in (True, False))
    if do and do_not:
        raise ValueError(
            f"sites {do} hash their cell types and sites {do_not} don't: give all the same label_salt, or none"
        )
    return bool(do)


def find_shared_labels(
    reported: Mapping[str, Sequence[str]],
    *,
    hashed: bool,
    min_holders: int = FEWEST_HOLDERS,
    reference: ReferenceKind = "landmarks",
) -> list[str]:
    """Cell types that enough sites report, sorted; none if there is one site alone.

    Raises
    ------
    NoSharedLabelError
        Several sites take part, and no type is reported by enough.
    """
    held = Counter(label for labels in reported.values() for label in labels)
    shared = sorted(label for label, n_sites in held.items() if n_sites >= min_holders)
    if not shared and len(reported) > 1:
        listed = "; ".join(f"{site}: {', '.join(labels[:3]) or 'none'}" for site, labels in reported.items())
        salt = ", and that all sites have the same label_salt" if hashed else ""
        fewer = " or min_holders" if min_holders > FEWEST_HOLDERS else ""
        without = "correct without labels" if reference == "landmarks" else "use reference='landmarks' without labels"
        raise NoSharedLabelError(
            f"no cell type is reported by {min_holders} sites: check that labels are spelled alike everywhere "
            f"({listed}){salt}, lower min_cells{fewer}, or {without} (labels_key=None, --unlabelled)"
        )
    return shared if len(reported) > 1 else []


def choose_labels(
    described: Mapping[str, Description], reference: ReferenceKind, unaligned_sites: Sequence[str] = ()
) -> list[str]:
    """Cell types that the sites share, as the references need them.

    Raises
    ------
    NoSharedLabelError
        There is none, and references are wanted for each type, or all cells have labels, which then seem to be spelled
        differently; or this is so for one site, and it isn't among ``unaligned_sites``.
    ValueError
        A site wants means of more sites than there are, or some sites hash their cell types and some don't.

    Warns
    -----
    UserWarning
        There is none, and cells move without labels though some have one; or as :func:`check_labels` does.
    """
    min_holders = _find_min_holders({name: site.min_holders for name, site in described.items()})
    hashed = all_hash({name: site.hashed for name, site in described.items() if site.labels})
    reported = {name: site.labels for name, site in described.items()}
    try:
        shared = find_shared_labels(reported, hashed=hashed, min_holders=min_holders, reference=reference)
    except NoSharedLabelError as error:
        if reference != "landmarks" or all(site.complete for site in described.values()):
            raise
        if any(site.labels or site.complete for site in described.values()):
            one_site = (
                "" if all(reported.values()) else "; with min_holders=1 at all sites, labels of one site serve all"
            )
            warn_of_lost_labels(f"{error}{one_site}")
        return []
    if len(described) > 1:
        complete = {name: site.complete for name, site in described.items()}
        check_labels(reported, shared, complete=complete, hashed=hashed, unaligned_sites=unaligned_sites)
    return shared


def _find_min_holders(wishes: Mapping[str, int]) -> int:
    """The largest of all sites' wishes.

    Raises
    ------
    ValueError
        Several sites take part, and one wants means of more sites than these.
    """
    site = max(wishes, key=lambda name: wishes[name])
    if 1 < len(wishes) < wishes[site]:
        raise ValueError(
            f"min_holders={wishes[site]} at site {site!r}, but {len(wishes)} sites take part ({', '.join(wishes)}), so "
            f"that no mean could be opened: lower it to {len(wishes)} or less there, or begin when more sites take part"
        )
    return wishes[site]
