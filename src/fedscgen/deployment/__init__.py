"""What a site and a coordinator do when a federation runs across institutions, whatever carries their messages.

A transport implements :class:`Carrier` for the coordinator, hands it to :func:`coordinate`, and at a site hands what
comes to :meth:`Site.answer`, or to the socket of :func:`serve`, which is a site's program under a user of its own.
:mod:`fedscgen.flower` is one; :class:`InProcessCarrier` is the smallest.
"""

from fedscgen._options import read_options, write_options
from fedscgen._types import make_refusal
from fedscgen.deployment._carrier import Carrier, Failure, InProcessCarrier
from fedscgen.deployment._checklist import checklist
from fedscgen.deployment._config import CoordinatorConfig, SiteConfig
from fedscgen.deployment._coordinator import coordinate
from fedscgen.deployment._introduction import INTRODUCTION
from fedscgen.deployment._service import serve
from fedscgen.deployment._site import Site
from fedscgen.deployment._site_files import write_site_files
from fedscgen.deployment._transport import CarrierTransport
from fedscgen.deployment._trust import find_fingerprint, read_trust, trust_site
from fedscgen.federation import Workflow

__all__ = [
    "INTRODUCTION",
    "Carrier",
    "CarrierTransport",
    "CoordinatorConfig",
    "Failure",
    "InProcessCarrier",
    "Site",
    "SiteConfig",
    "Workflow",
    "checklist",
    "coordinate",
    "find_fingerprint",
    "make_refusal",
    "read_options",
    "read_trust",
    "serve",
    "trust_site",
    "write_options",
    "write_site_files",
]
