"""A federation: its sites, its server, what they exchange, and all of it in one process."""

from fedscgen.federation._client import Client
from fedscgen.federation._ledger import PrivacyLedger
from fedscgen.federation._policy import PolicyError, SitePolicy
from fedscgen.federation._server import Server
from fedscgen.federation._settings import FederationSettings
from fedscgen.federation._simulate import SimulationResult, simulate
from fedscgen.federation._transport import InProcessTransport, SiteError, Transport

__all__ = [
    "Client",
    "FederationSettings",
    "InProcessTransport",
    "PolicyError",
    "PrivacyLedger",
    "Server",
    "SimulationResult",
    "SiteError",
    "SitePolicy",
    "Transport",
    "simulate",
]
