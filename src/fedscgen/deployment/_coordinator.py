"""The coordinator's program: who takes part, what is run, and what is kept of it."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from fedscgen._files import keep_private, lock_folder, write_whole
from fedscgen._types import References
from fedscgen.check import CHECK_PAGE, LABEL_MAP, check_together, describe_check, write_check_page
from fedscgen.deployment._aggregators import make_aggregator
from fedscgen.deployment._introduction import Proposal
from fedscgen.deployment._transport import CarrierTransport
from fedscgen.federation import InitialModel, PrivacyLedger, Server, SiteError
from fedscgen.model import SavedModel, read_model, write_model
from fedscgen.prepare import write_label_map
from fedscgen.secure import AggregationError, PlainAggregator

if TYPE_CHECKING:
    from pathlib import Path

    from fedscgen.deployment._carrier import Carrier
    from fedscgen.deployment._config import CoordinatorConfig

logger = logging.getLogger(__name__)


@keep_private()
def coordinate(carrier: Carrier, config: CoordinatorConfig) -> None:
    """Gather the sites, run the workflow and write what the coordinator gets.

    That is, in ``config.output``: of a check ``check.html``, ``check.txt`` and a proposed ``labels.toml``. Else
    ``model/`` with weights and references, ``history.csv`` with the validation loss of each round, and while it runs
    ``run/``, with which the same command goes on after the last opened sum. Of each workflow, such as
    ``ledger-training.csv``, every message.

    Parameters
    ----------
    carrier
        The way to the sites.
    config
        What the coordinator has decided.

    Raises
    ------
    FileExistsError
        The output holds a trained model.
    BlockingIOError
        Another run is writing to the output.
    SiteError, AggregationError
        Too few sites are left; the message says why others aren't. If that is when they correct their cells, what was
        trained is written before.
    CheckpointError
        The output's checkpoint, or the model, is damaged or of another federation.
    ValueError
        The initial model can't be read, or doesn't fit the federation.
    """
    output = config.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    workflow = {"training": _train, "correction": _correct, "check": _check}[config.workflow]
    ledger = PrivacyLedger(output / f"ledger-{config.workflow}.csv")
    transport = CarrierTransport(carrier, config.answer_timeout, ledger)
    try:
        with lock_folder(output):
            workflow(transport, config, output)
    except (AggregationError, SiteError) as error:
        raise type(error)(f"{error}{transport.list_reasons()}") from error
    logger.info("the result is in %s", output)


def _train(transport: CarrierTransport, config: CoordinatorConfig, output: Path) -> None:
    model = output / "model"
    if model.exists():
        raise FileExistsError(f"{model} exists: choose another output, or move the model away")
    init_model = None if config.init_model is None else InitialModel.read(config.init_model)
    _gather(transport, config)
    memory = output / "run"
    with make_aggregator(config.secure, len(transport.sites), reveals_counts=config.reveals_counts) as aggregator:
        server = Server(transport, aggregator, config.settings, init_model)
        try:
            server.run(on_round=_log_round, memory=memory)
        except (AggregationError, SiteError) as error:
            found = server.references
            if isinstance(found, References) and not found.labels:
                raise
            _keep_result(output, server)
            raise type(error)(
                f"{error}; what was trained is in {model}, with which the workflow 'correction' corrects cells"
            ) from error
    _keep_result(output, server)
    shutil.rmtree(memory, ignore_errors=True)


def _keep_result(output: Path, server: Server) -> None:
    """Write what the federation has found."""
    history = pd.DataFrame({"round": range(1, len(server.losses) + 1), "federation_loss": server.losses})
    write_whole(output / "history.csv", history.to_csv(index=False).encode())
    model, architecture = server.settings.model, server.settings.architecture
    saved = SavedModel(server.weights, server.genes, server.references, model, architecture=architecture)
    write_model(output / "model", saved)


def _correct(transport: CarrierTransport, config: CoordinatorConfig, output: Path) -> None:
    trained = read_model(cast("Path", config.trained_model))  # a configuration without one is refused
    if trained.references is None:
        raise ValueError(f"trained-model={config.trained_model} holds no references: name what a training has written")
    settings = replace(config.settings, architecture=trained.architecture, model=trained.model).of_correction()
    _gather(transport, config)
    Server(transport, PlainAggregator(), settings).serve(trained.genes, trained.weights, trained.references)


def _check(transport: CarrierTransport, config: CoordinatorConfig, output: Path) -> None:
    _gather(transport, config)
    checked = check_together(transport, config.settings, secure=config.secure, reveals_counts=config.reveals_counts)
    checked = replace(checked, left_out=dict(transport.reasons))
    text = describe_check(checked, secure=config.secure)
    logger.info("%s", text)
    write_whole(output / "check.txt", f"{text}\n".encode())
    write_check_page(output / CHECK_PAGE, checked, secure=config.secure)
    if not any(site.meanings for site in checked.sites):  # names that sites hash have no meaning here
        write_label_map(output / LABEL_MAP, checked.proposal)


def _gather(transport: CarrierTransport, config: CoordinatorConfig) -> None:
    transport.gather(
        Proposal.of(config).to_message(),
        n_sites=config.n_sites,
        min_sites=config.settings.least_of(config.n_sites),
        timeout=config.join_timeout,
    )


def _log_round(round_: int, weights: Any) -> None:
    logger.info("round %d is finished", round_)
