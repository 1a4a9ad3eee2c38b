"""A site: the only place where its cells, counts and means exist in the clear."""

from __future__ import annotations

import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedscgen._data import LATENT_KEY, check_data, working_copy
from fedscgen._options import check_kind, read_options
from fedscgen._types import Message, References
from fedscgen.aggregation import policy_of_result, site_weight, to_summable
from fedscgen.correction import Question, read_references, refuse_options_by_type
from fedscgen.federation._ledger import PrivacyLedger
from fedscgen.federation._models import find_model
from fedscgen.federation._padding import padded_copy, remove_padding
from fedscgen.federation._policy import LabelNames
from fedscgen.federation._protocol import (
    BEGIN,
    CORRECT,
    DESCRIBE,
    LANDMARKS,
    REFERENCES,
    SERVER,
    SET_UP,
    TASKS,
    TRAIN,
    VALIDATE,
    VALIDATION_LOSS,
)
from fedscgen.federation._settings import FederationSettings, SiteOptions
from fedscgen.federation._site_cells import SiteCells
from fedscgen.model import CorrectionOptions
from fedscgen.secure import Contribution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    from fedscgen._types import Buffer
    from fedscgen.correction import Landmarks, LandmarkSums
    from fedscgen.federation._models import FederatedModel
    from fedscgen.secure import Contributor


class Client:
    """One site of a federation. It answers messages, and nothing but its answers leaves it.

    Parameters
    ----------
    site
        The site's name, unique in the federation.
    adata
        The site's cells, log-normalised. It is never changed.
    contributor
        The site's half of the federation's aggregator.
    options
        What is where in ``adata``, and the size from which the site reports a cell type.
    correction
        How the site corrects its cells.
    accelerator
        Where to train, as Lightning names it: ``"cpu"``, ``"gpu"``, ``"auto"``.
    label_salt
        A secret that all sites share. Cell types then leave the site as keyed hashes (HMAC-SHA256) instead of names.
        Who holds the salt can guess names and compare their hashes; who doesn't, such as the coordinator, can't, and
        sees only how many types a site reports and which ones others report too. Types that a site has no cell of keep
        their hash there, also in what it predicts; a warning says so. ``None``: they travel by name.
    ledger
        Where every message is recorded; ``None`` begins a new ledger.

    Attributes
    ----------
    model
        The site's model, once the federation has agreed on its settings. In its references, once the federation has
        finished, types that the site knows have the site's own names; those of a site that is alone are its own.
    corrected
        The site's corrected cells, once the federation has finished.
    history
        One row per epoch: ``round``, ``epoch``, ``train_loss``, ``validation_loss``, ``seconds``.
    ledger
        Every message that reached or left this site.

    Raises
    ------
    KeyError, ValueError
        The data can't be used; see :meth:`fedscgen.model.FedSCGEN.setup_anndata`. The message names the site.
    """

    def __init__(
        self,
        site: str,
        adata: AnnData,
        contributor: Contributor,
        options: SiteOptions | None = None,
        correction: CorrectionOptions | None = None,
        *,
        accelerator: str = "auto",
        label_salt: str | None = None,
        ledger: PrivacyLedger | None = None,
    ) -> None:
        options = SiteOptions() if options is None else options
        correction = CorrectionOptions() if correction is None else correction
        check_kind(options, SiteOptions, "options")
        check_kind(correction, CorrectionOptions, "correction")
        self.site = site
        self.model: FederatedModel | None = None
        self.corrected: AnnData | None = None
        self.history: list[dict[str, Any]] = []
        self.ledger = PrivacyLedger() if ledger is None else ledger
        self._adata = adata
        self._keys = options.keys
        self._cells = SiteCells(adata, options, LabelNames(label_salt))
        self._contributor = contributor
        self._accelerator = accelerator
        self._correction = correction
        self._settings = FederationSettings()
        self._randomness = _Randomness(0)
        self._landmark_sums: LandmarkSums | None = None
        check_data(adata, self._keys, who=f"site {site!r}: ")

    def handle(self, data: Buffer) -> memoryview:
        """Answer a message in the wire format; both are entered into the ledger.

        Raises
        ------
        WireFormatError
            ``data`` is no message.
        AggregationError, ValueError
            The message can't be answered; nothing leaves the site.
        """
        message = Message.from_bytes(data)
        self.ledger.record(SERVER, self.site, message, len(data))
        answer = self._perform(message)
        if "round" in message.meta:
            answer = Message(answer.kind, {**answer.meta, "round": message.meta["round"]}, answer.arrays)
        encoded = answer.to_buffer()
        self.ledger.record(self.site, SERVER, answer, len(encoded))
        return encoded

    def _perform(self, message: Message) -> Message:
        if message.kind in TASKS:
            with self._randomness.in_use():
                contribution = self._tasks[message.kind](message)
            return self._contributor.contribute(contribution, message)
        steps = {DESCRIBE: self._describe, SET_UP: self._set_up, CORRECT: self._correct}
        return steps[message.kind](message) if message.kind in steps else self._contributor.answer(message)

    def resume(self, message: Message) -> None:
        """Do again what a set-up message asked for, after the site's process was restarted.

        Nothing is answered or entered into the ledger. The site's random numbers begin anew; its history does too.

        Raises
        ------
        ValueError
            It is no set-up message.
        """
        if message.kind != SET_UP:
            raise ValueError(f"a site resumes from a message of kind {SET_UP!r}, not {message.kind!r}")
        self._set_up(message)

    def close(self) -> None:
        """Free the working copy, which scvi-tools would keep for good."""
        if self.model is not None:
            self.model.close()

    @property
    def _tasks(self) -> dict[str, Callable[[Message], Contribution]]:
        return {
            BEGIN: self._summarize,
            TRAIN: self._train,
            VALIDATE: self._validate,
            REFERENCES: self._contribute_means,
            LANDMARKS: self._sum_near_landmarks,
        }

    def _describe(self, message: Message) -> Message:
        if (reference := message.meta["reference"]) == "landmarks":
            refuse_options_by_type(shrink=self._correction.shrink, unlabeled=self._correction.unlabeled)
        return self._cells.describe(reference).to_message()

    def _set_up(self, message: Message) -> Message:
        """Build the model on the genes that the sites agreed on."""
        self._settings = read_options(FederationSettings, message.meta["settings"], "the federation's settings")
        self._randomness = _Randomness(int(message.meta["seed"]))
        make_copy = padded_copy if self._settings.genes == "union" else working_copy
        working = make_copy(self._adata, self._keys, message.meta["genes"])
        model_class = find_model(self._settings.architecture)
        with self._randomness.in_use(), _silence_repeated_warnings():
            model_class.setup_anndata(working, **self._keys.of_anndata())
            self.model = model_class(working, **self._settings.model)
        return Message(SET_UP, {"ready": True})

    def _summarize(self, message: Message) -> Contribution:
        model = self._require_model()
        return Contribution(model.summarize(message.arrays), self._weigh(model.n_training_cells()))

    def _train(self, message: Message) -> Contribution:
        """Train from the federation's weights; their loss at this site is sent along."""
        began, settings, round_ = time.perf_counter(), self._settings, int(message.meta["round"])
        model = self._load(message)
        loss = model.get_validation_loss(batch_size=settings.batch_size)
        update = model.train_local(
            settings.n_epochs,
            lr=settings.lr * settings.lr_decay ** (round_ - 1),
            batch_size=settings.batch_size,
            fixed_batches=settings.fixed_batches,
            early_stopping=settings.restore_best_epoch,
            proximal_weight=settings.proximal_weight,
            accelerator=self._accelerator,
        )
        self._note_epochs(round_, time.perf_counter() - began)
        arrays = {**to_summable(update.weights, settings.batchnorm), VALIDATION_LOSS: np.asarray(loss)}
        return Contribution(arrays, self._weigh(update.n_cells))

    def _validate(self, message: Message) -> Contribution:
        model = self._load(message)
        loss = model.get_validation_loss(batch_size=self._settings.batch_size)
        return Contribution({VALIDATION_LOSS: np.asarray(loss)}, self._weigh(model.n_training_cells()))

    def _contribute_means(self, message: Message) -> Contribution:
        latent, meta = self._load(message).get_latent_representation(), message.meta
        return Contribution(self._cells.sum_means(latent, meta["labels"], meta["reference"]))

    def _sum_near_landmarks(self, message: Message) -> Contribution:
        """Sums over this site's cells, which the last question with weights has encoded."""
        question = Question.from_json(message.meta)
        if message.arrays:
            latent = self._load(message).get_latent_representation()
            self._landmark_sums = self._cells.begin_landmarks(latent, message.meta["labels"])
        if self._landmark_sums is None:
            raise ValueError(f"site {self.site!r} was restarted while landmarks were sought: it can still be corrected")
        return Contribution(self._landmark_sums.answer(question))

    def _correct(self, message: Message) -> Message:
        """Correct this site's cells."""
        self._landmark_sums = None
        model = self._load(message)
        sent = read_references(message.meta["references"])
        model.references = replace(sent, labels=tuple(self._cells.own_names(sent.labels)))
        self.corrected = self._correct_cells(model, model.references)
        if LATENT_KEY not in self.corrected.obsm:
            raise ValueError(f"{type(model).__name__}.correct has written no obsm[{LATENT_KEY!r}]")
        self._cells.warn_of_hashes(self.corrected, sent.labels, who=f"site {self.site!r}: ")
        return Message(CORRECT, {"done": True})

    def _correct_cells(self, model: FederatedModel, references: References | Landmarks) -> AnnData:
        if isinstance(references, References) and self._keys.batch_key is not None:  # landmarks move every batch
            latent, alone = model.get_latent_representation(), not references.labels
            references = self._cells.add_own_references(references, latent, self._settings.reference)
            model.references = references if alone else model.references
        options = vars(self._correction)
        with _silence_repeated_warnings():
            if set(model.genes) <= set(self._adata.var_names):
                return model.correct(self._adata, references=references, **options)
            on_all_genes = model.correct(references=references, **options)
        return remove_padding(self._adata, on_all_genes, self._correction.expression)

    def _weigh(self, n_cells: int) -> float:
        return site_weight(n_cells, self._settings.strategy)

    def _load(self, message: Message) -> FederatedModel:
        model = self._require_model()
        policy = self._settings.batchnorm
        trains = message.kind in (TRAIN, VALIDATE)
        model.load_weights(message.arrays, policy if trains else policy_of_result(policy))
        return model

    def _require_model(self) -> FederatedModel:
        if self.model is None:
            raise ValueError(f"site {self.site!r} has no model yet: the server must send its settings first")
        return self.model

    def _note_epochs(self, round_: int, seconds: float) -> None:
        history = self._require_model().history
        losses = {name: history[name].iloc[:, 0] for name in ("train_loss", VALIDATION_LOSS) if name in history}
        n_new = max(map(len, losses.values()), default=len(self.history) + 1) - len(self.history)
        for epoch in range(n_new):
            values = {name: float(column.iloc[epoch - n_new]) for name, column in losses.items()}
            self.history.append({"round": round_, "epoch": epoch + 1, **values, "seconds": seconds / n_new})


class _Randomness:
    """A site's own stream of random numbers, so that it trains alike beside other sites and alone on its machine."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: tuple[torch.Tensor, list[torch.Tensor]] | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            if self._states is None:
                torch.manual_seed(self._seed)
            else:
                torch.set_rng_state(self._states[0])
                torch.cuda.set_rng_state_all(self._states[1])
            yield
            self._states = torch.get_rng_state(), torch.cuda.get_rng_state_all()


@contextmanager
def _silence_repeated_warnings() -> Iterator[None]:
    """Leave out what was said of the site's data when the client was made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
