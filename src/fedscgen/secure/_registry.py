"""Aggregators by name, to which other packages add their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedscgen._registry import Registry
from fedscgen.secure._aggregator import Aggregator, Contributor
from fedscgen.secure._plain import PlainAggregator, PlainContributor


@dataclass(frozen=True)
class AggregatorKind:
    """What a name of an aggregator stands for: how to make its two halves, and what it protects.

    Parameters
    ----------
    aggregator
        Makes the coordinator's half. It is called with the keywords ``n_sites``, the number of sites that will take
        part, and ``reveal_keys``, whether the coordinator may see the keys that sites compare in a selection.
    contributor
        Makes a site's half. It is called with the site's name and the keywords ``reveal_keys``, whether the site agrees
        that the coordinator sees its keys, and ``min_sites``, fewest sites in any sum that it contributes to, from 1.
    shows_terms
        Whether the coordinator sees each site's own term, as with ``"plain"``.
    star
        Whether it protects sites that talk to nobody but the coordinator, as those of a deployment do.
    summary
        One line for help texts, in lower case and without a full stop.
    entries
        Names of what it adds to the ``meta`` of the federation's messages and of the answers to them, besides
        ``"protection"``. Entries that nobody has named are refused; its own stages' it checks itself.
    """

    aggregator: Callable[..., Aggregator]
    contributor: Callable[..., Contributor]
    shows_terms: bool
    star: bool
    summary: str
    entries: tuple[str, ...] = ()


_AGGREGATORS: Registry[AggregatorKind] = Registry("aggregator")


def register_aggregator(name: str, kind: AggregatorKind, *, overwrite: bool = False) -> None:
    """Make an aggregator known by a name, in this process.

    An installed package can have a module of its own do so, which it names among its entry points ``fedscgen.plugins``.

    Parameters
    ----------
    name
        What simulations, policies of sites and deployments call it.
    kind
        What the name stands for.
    overwrite
        Take the place of another aggregator of that name.

    Raises
    ------
    TypeError
        ``kind`` is no :class:`AggregatorKind`.
    ValueError
        The name is empty, or is taken and ``overwrite`` isn't set.
    """
    if not isinstance(kind, AggregatorKind):
        raise TypeError(
            f"aggregator {name!r}: expected an AggregatorKind, which says how to make both halves, not {kind!r}"
        )
    _AGGREGATORS.register(name, kind, overwrite=overwrite)


def find_aggregator(name: str) -> AggregatorKind:
    """What a name of an aggregator stands for.

    Parameters
    ----------
    name
        A name that was registered.

    Raises
    ------
    ValueError
        It wasn't; the message lists those that were.
    """
    return _AGGREGATORS.find(name)


def aggregator_names() -> list[str]:
    """Names of all aggregators, the package's own first."""
    return _AGGREGATORS.names()


def make_aggregator(secure: str | Aggregator, n_sites: int, *, reveal_keys: bool = False) -> Aggregator:
    """An aggregator with its default settings, or the one that is given.

    Parameters
    ----------
    secure
        ``"plain"`` (the coordinator sees every update), ``"crypten"`` (secret shares among compute parties),
        ``"masked"`` (pairwise masks, over a coordinator alone), another name that was registered, or an aggregator with
        settings of your own.
    n_sites
        Sites that will take part.
    reveal_keys
        Allow selections that show the coordinator the keys that sites compare. No matter for an aggregator that is
        given.

    Raises
    ------
    ModuleNotFoundError
        The extra isn't installed; the message names the pip command.
    ValueError
        Unknown name, or the aggregator calls itself otherwise.
    """
    if isinstance(secure, Aggregator):
        return secure
    made = find_aggregator(secure).aggregator(n_sites=n_sites, reveal_keys=reveal_keys)
    if made.name != secure:  # sites agree to a name
        raise ValueError(f"the aggregator {secure!r} calls itself {made.name!r}: give its class this name")
    return made


# what needs an extra is imported when it is asked for
def _make_masked(*, n_sites: int, reveal_keys: bool) -> Aggregator:
    from fedscgen.secure.masked._aggregator import MaskedAggregator

    return MaskedAggregator(reveal_keys=reveal_keys)


def _make_masked_contributor(site: str, *, reveal_keys: bool, min_sites: int) -> Contributor:
    from fedscgen.secure.masked._contributor import MaskedContributor

    return MaskedContributor(site, reveal_keys=reveal_keys, min_sites=max(2, min_sites))


def _make_crypten(*, n_sites: int, reveal_keys: bool) -> Aggregator:
    from fedscgen.secure.crypten._aggregator import CryptenAggregator

    return CryptenAggregator(n_sites)


def _make_crypten_contributor(site: str, *, reveal_keys: bool, min_sites: int) -> Contributor:
    from fedscgen.secure.crypten._contributor import CryptenContributor

    return CryptenContributor(site, min_sites=max(2, min_sites))


register_aggregator(
    "plain",
    AggregatorKind(
        aggregator=lambda *, n_sites, reveal_keys: PlainAggregator(),
        contributor=lambda site, *, reveal_keys, min_sites: PlainContributor(),
        shows_terms=True,
        star=True,
        summary="the coordinator sees every update, for study only",
    ),
)
register_aggregator(
    "crypten",
    AggregatorKind(
        aggregator=_make_crypten,
        contributor=_make_crypten_contributor,
        shows_terms=False,
        star=False,  # its parties run on the coordinator's machine
        summary='secret shares among compute processes; needs the extra "crypten"',
    ),
)
register_aggregator(
    "masked",
    AggregatorKind(
        aggregator=_make_masked,
        contributor=_make_masked_contributor,
        shows_terms=False,
        star=True,
        summary='pairwise masks, over a coordinator alone; needs the extra "masked"',
    ),
)
