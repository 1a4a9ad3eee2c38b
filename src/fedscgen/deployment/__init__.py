"""What a site and a coordinator do when a federation runs across institutions, whatever carries their messages.

A transport implements :class:`Carrier` for the coordinator, hands it to :func:`coordinate`, and at a site hands what
comes to :meth:`Site.answer`. :mod:`fedscgen.flower` is one; :class:`InProcessCarrier` is the smallest.
"""

from fedscgen._options import read_options, write_options
from fedscgen.deployment._carrier import Carrier, Failure, InProcessCarrier
from fedscgen.deployment._checklist import checklist
from fedscgen.deployment._config import CoordinatorConfig, SiteConfig, Workflow
from fedscgen.deployment._coordinator import coordinate
from fedscgen.deployment._introduction import make_refusal
from fedscgen.deployment._site import Site
from fedscgen.deployment._transport import CarrierTransport

__all__ = [
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
    "make_refusal",
    "read_options",
    "write_options",
]
