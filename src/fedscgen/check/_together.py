"""A check over a transport, at the coordinator: one question to every site, and what others use told to each."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from fedscgen._types import Message, WireFormatError
from fedscgen.check._answer import read_answer
from fedscgen.check._check import USUAL_SUM, Checked
from fedscgen.federation import CHECK, TELL, Plan, SiteError, SiteOptions, check_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fedscgen.federation import FederationSettings, Transport


def check_together(
    transport: Transport, settings: FederationSettings, *, secure: str = "masked", reveals_counts: bool = False
) -> Checked:
    """Ask every site what it has, find what stands in the way of a training, and tell each site the names in use.

    Nothing is summed, and nobody trains. Each site is a :class:`SiteCheck`.

    Parameters
    ----------
    transport
        The way to the sites.
    settings
        What the sites would do alike.
    secure
        How sums would be opened.
    reveals_counts
        Whether the coordinator would see counts of cells.

    Raises
    ------
    SiteError
        No site answers, one answers with something else, or some hash their cell types and some don't.
    """
    sites = tuple(transport.sites)
    plan = Plan(secrets.token_hex(16), "check", settings, secure, reveals_counts, sites)
    answers = dict(_ask(transport, dict.fromkeys(sites, Message(CHECK, plan.to_json()))))
    if not answers:
        raise SiteError("no site has answered: there is nothing to check")
    if len({answer.meta["hashed"] for answer in answers.values() if answer.meta["labels"]}) > 1:
        hashing = ", ".join(site for site, answer in answers.items() if answer.meta["hashed"])
        raise SiteError(f"only {hashing} hash their cell types: give all sites the same label salt, or none")
    options = SiteOptions(
        min_cells=max(answer.meta["min_cells"] for answer in answers.values()),
        min_holders=max(answer.meta["min_holders"] for answer in answers.values()),
    )
    looked = tuple(read_answer(site, answers[site]) for site in sites if site in answers)
    checked = Checked(looked, settings, options, settings.target_sum or USUAL_SUM)
    names = sorted({name for site in looked for name in site.own_labels})
    meta = {"names": names, "map": dict(checked.proposal.sure)}
    told = Message(TELL, {**meta, "common": checked.common_types, "n_genes": len(checked.genes)})
    for _ in _ask(transport, dict.fromkeys(answers, told)):
        pass
    return checked


def _ask(transport: Transport, messages: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
    for site, answer in transport.ask(messages):
        try:
            check_answer(messages[site], answer)
        except WireFormatError as error:
            raise SiteError(f"site {site!r} answered with {error}") from error
        yield site, answer
