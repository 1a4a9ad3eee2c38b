"""Three sites with honest masks, and coordinators who lie to them."""

from cells import SMALL, make_adata
from fedscgen._types import Message
from fedscgen.federation import FederationSettings, InProcessTransport, Server, SitePolicy
from fedscgen.secure import MaskedAggregator, MaskedContributor
from quick import make_client

SITES = ("site0", "site1", "site2")
SETTINGS = FederationSettings(n_rounds=1, n_epochs=1, model=SMALL, seed=0)
POLICY = SitePolicy()
BEGIN = Message(
    "mask public keys",
    {"masking": {"session": "x", "sum": 1, "threshold": 3, "precision": 27, "max_abs": 2.0**32, "whole": False}},
)


def make_clients(contributors=None, record=None, memory=None, **options):
    adata = make_adata()
    contributors = {site: MaskedContributor(site) for site in SITES} | (contributors or {})
    return [
        make_client(
            site,
            adata[adata.obs["batch"] == site].copy(),
            contributors[site],
            record=None if record is None else record / f"{site}.json",
            memory=None if memory is None else memory / site,
            **{"seed": i, "policy": POLICY, **options},
        )
        for i, site in enumerate(SITES)
    ]


class Lying(InProcessTransport):
    """Changes the messages of one kind on their way to the sites."""

    def __init__(self, clients, kind=None, change=None):
        super().__init__(clients)
        self.kind, self.change, self.sent = kind, change, []

    def ask(self, messages):
        self.sent.append(dict(messages))
        changed = {
            site: self.change(site, message) if message.kind == self.kind else message
            for site, message in messages.items()
        }
        yield from super().ask(changed)


def run(clients=None, kind=None, change=None, aggregator=None, settings=SETTINGS):
    transport = Lying(make_clients() if clients is None else clients, kind, change)
    server = Server(transport, aggregator or MaskedAggregator(), settings)
    server.run()
    return server, transport


def agreed(clients=None, settings=SETTINGS):
    """A server whose sites have agreed to its plan, and can be asked for anything."""
    clients = make_clients() if clients is None else clients
    server = Server(InProcessTransport(clients), MaskedAggregator(), settings)
    server.agree()
    return server, clients


def ask(server, kind, **meta):
    """A sum that the coordinator would like to open, whatever comes next."""
    message = Message(kind, {"task": kind, **meta})
    return server._aggregator.sum(server._ask, list(SITES), message, require_all=True)
