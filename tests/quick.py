"""Small federations and sites whose settings tests name one by one."""

from cells import SMALL
from fedscgen import federation
from fedscgen._options import names_of
from fedscgen.federation import Client, CorrectionOptions, FederationSettings, Plan, SiteOptions

QUICK = {"n_rounds": 2, "n_epochs": 1, "model": SMALL, "show_progress": False}


def simulate(data, site_key="batch", **options):
    """:func:`fedscgen.federation.simulate`, with each option in the settings that have it."""
    settings, site, correction = (take(cls, options) for cls in (FederationSettings, SiteOptions, CorrectionOptions))
    return federation.simulate(data, site_key, settings=settings, site=site, correction=correction, **options)


def make_client(site, adata, contributor, **options):
    """A client, with each option in the settings that have it."""
    settings = [take(cls, options) for cls in (SiteOptions, CorrectionOptions)]
    return Client(site, adata, contributor, *settings, **options)


def take(cls, options):
    """Settings of what belongs to them, which is gone from the options then."""
    return cls(**{name: options.pop(name) for name in names_of(cls) if name in options})


def propose(*sites, aggregator="plain", **settings):
    """A plan of these sites; by default of site0 alone."""
    settings = FederationSettings(**{"seed": 0, "model": SMALL, **settings})
    return Plan("0" * 32, "training", settings, aggregator, aggregator == "plain", sites or ("site0",))
