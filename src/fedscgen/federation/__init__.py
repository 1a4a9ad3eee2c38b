"""A federation: its sites, its server, what they exchange, and all of it in one process."""

from fedscgen._options import Preset
from fedscgen.federation._client import Client
from fedscgen.federation._initial_model import InitialModel
from fedscgen.federation._ledger import PrivacyLedger
from fedscgen.federation._ledger_file import LedgerCheck, check_ledger, read_ledger
from fedscgen.federation._meta import check_answer, check_question
from fedscgen.federation._models import FederatedModel, find_model, register_model
from fedscgen.federation._plan import Plan, Workflow
from fedscgen.federation._policy import LabelNames, PolicyError, SitePolicy
from fedscgen.federation._protocol import CHECK, CORRECT, DESCRIBE, SERVER, SET_UP, TELL
from fedscgen.federation._server import Server
from fedscgen.federation._settings import FederationSettings, SiteOptions
from fedscgen.federation._settings_file import SimulationSettings, read_settings, write_settings
from fedscgen.federation._simulate import SimulationResult, simulate
from fedscgen.federation._transport import InProcessTransport, SiteError, Transport
from fedscgen.model import CorrectionOptions

__all__ = [
    "CHECK",
    "CORRECT",
    "DESCRIBE",
    "SERVER",
    "SET_UP",
    "TELL",
    "Client",
    "CorrectionOptions",
    "FederatedModel",
    "FederationSettings",
    "InProcessTransport",
    "InitialModel",
    "LabelNames",
    "LedgerCheck",
    "Plan",
    "PolicyError",
    "Preset",
    "PrivacyLedger",
    "Server",
    "SimulationResult",
    "SimulationSettings",
    "SiteError",
    "SiteOptions",
    "SitePolicy",
    "Transport",
    "Workflow",
    "check_answer",
    "check_ledger",
    "check_question",
    "find_model",
    "read_ledger",
    "read_settings",
    "register_model",
    "simulate",
    "write_settings",
]
