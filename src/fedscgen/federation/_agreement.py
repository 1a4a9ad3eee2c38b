"""What the sites have in common: the genes and cell types of a federation, from what each site has described."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from fedscgen.correction import NoSharedLabelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen.federation._settings import GenesKind

logger = logging.getLogger(__name__)


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
    return list(held) if kind == "union" else [name for name, n_sites in held.items() if n_sites == len(genes)]


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


def find_shared_labels(reported: Mapping[str, Sequence[str]], *, hashed: bool) -> list[str]:
    """Cell types that at least two sites report, sorted; none if there is one site alone.

    Raises
    ------
    NoSharedLabelError
        Several sites take part, and no type is reported by two.
    """
    held = Counter(label for labels in reported.values() for label in labels)
    shared = sorted(label for label, n_sites in held.items() if n_sites >= 2)
    if not shared and len(reported) > 1:
        listed = "; ".join(f"{site}: {', '.join(labels[:3]) or 'none'}" for site, labels in reported.items())
        salt = ", and that all sites have the same label_salt" if hashed else ""
        raise NoSharedLabelError(
            f"no cell type is reported by two sites: check that labels are spelled alike everywhere ({listed}){salt}, "
            "or lower min_cells"
        )
    return shared
