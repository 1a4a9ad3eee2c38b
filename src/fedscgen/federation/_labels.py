"""What becomes of cell types that one site alone reports, told before anything is computed."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

from fedscgen.correction import NoSharedLabelError, suggest_spelling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)


def check_labels(
    reported: Mapping[str, Sequence[str]],
    shared: Sequence[str],
    *,
    complete: Mapping[str, bool],
    hashed: bool,
    unaligned_sites: Sequence[str] = (),
) -> None:
    """Refuse a site that nothing would align, and warn of types that others seem to spell differently.

    Parameters
    ----------
    reported
        Each site's cell types.
    shared
        Those that enough sites report.
    complete
        Whether every cell of a site has a label.
    hashed
        Whether types are keyed hashes, which don't show how names are spelled.
    unaligned_sites
        Sites that may take part all the same.

    Raises
    ------
    NoSharedLabelError
        Every cell of a site has a label, and no other site shares any of its types.

    Warns
    -----
    UserWarning
        A type has almost the name of another site's, or a site takes part that nothing aligns.
    """
    for site, labels in reported.items():
        others = {label for other, theirs in reported.items() if other != site for label in theirs}
        alone = [label for label in labels if label not in shared]
        meant = {} if hashed else {label: suggest_spelling(label, others) for label in alone}
        asked = "; ".join(f"{label!r}, is it {other!r}?" for label, other in meant.items() if other)
        if labels and len(alone) == len(labels) and complete[site]:
            _refuse(site, alone, asked, allowed=site in unaligned_sites)
        elif asked:
            warn(f"site {site!r}: types that no other site reports by this name ({asked}): spell them alike")
        elif alone:
            logger.info("site %r: %d types that too few sites report: %s", site, len(alone), ", ".join(alone[:5]))


def _refuse(site: str, alone: Sequence[str], asked: str, *, allowed: bool) -> None:
    names = asked or ", ".join(map(repr, alone[:5]))
    message = f"site {site!r}: no other site shares any of its types ({names}), which tell nothing of its place then"
    if not allowed:
        raise NoSharedLabelError(
            f"{message}: spell types alike everywhere, leave the site out, or have it take part as it is "
            f"(unaligned_sites=({site!r},), --unaligned-site {site})"
        )
    warn(message)


def warn(message: str) -> None:
    """Tell a caller in Python, and the log."""
    logger.warning(message)
    warnings.warn(message, UserWarning, stacklevel=3)
