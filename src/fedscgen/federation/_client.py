"""A site: the only place where its cells, counts and means exist in the clear."""

from __future__ import annotations

import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedscgen._data import CORRECTED_LAYER, DataKeys, check_data, working_copy
from fedscgen._types import Message, References, check_choice
from fedscgen.aggregation import site_weight, to_summable
from fedscgen.correction import NoSharedLabelError, Unlabeled, align_labels, merge_references
from fedscgen.federation._ledger import PrivacyLedger
from fedscgen.federation._padding import padded_copy, unpadded
from fedscgen.federation._policy import LabelNames
from fedscgen.federation._protocol import (
    COMPONENTS,
    CORRECT,
    DESCRIBE,
    REFERENCES,
    SERVER,
    SET_UP,
    TASKS,
    TRAIN,
    VALIDATE,
    VALIDATION_LOSS,
)
from fedscgen.model import FedSCGEN
from fedscgen.principal_components import BASIS
from fedscgen.secure import Contribution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anndata import AnnData

    from fedscgen._types import Buffer
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
    batch_key
        Column of ``obs`` with batches within the site; ``None`` if all its cells are one batch.
    labels_key
        Column of ``obs`` with the cell types.
    layer
        Layer with the expression; ``X`` if ``None``.
    unlabeled_category
        What the column says of cells without a label; ``None`` if all have one. The site reports no such type.
    min_cells
        Cell types with fewer cells in a batch are not reported, not even by name, and don't serve as reference: the
        mean of one cell is that cell.
    accelerator
        Where to train, as Lightning names it: ``"cpu"``, ``"gpu"``, ``"auto"``.
    label_salt
        A secret that all sites share. Cell types then leave the site as keyed hashes (HMAC-SHA256) instead of names.
        Who holds the salt can guess names and compare their hashes; who doesn't, such as the coordinator, can't, and
        sees only how many types a site reports and which ones others report too. ``None``: they travel by name.
    ledger
        Where every message is recorded; ``None`` begins a new ledger.
    **correction
        Passed to :meth:`fedscgen.model.FedSCGEN.correct`: ``shrink``, ``unlabeled``, ``expression``, ``denoise``,
        ``reencode``, ``batch_size``.

    Attributes
    ----------
    model
        The site's model, once the federation has agreed on its settings. In its references, once the federation has
        finished, types that the site knows have the site's own names.
    corrected
        The site's corrected cells, once the federation has finished.
    history
        One row an epoch: ``round``, ``epoch``, ``train_loss``, ``validation_loss``, ``seconds``.
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
        *,
        batch_key: str | None = None,
        labels_key: str = "cell_type",
        layer: str | None = None,
        unlabeled_category: str | None = None,
        min_cells: int = 5,
        accelerator: str = "auto",
        label_salt: str | None = None,
        ledger: PrivacyLedger | None = None,
        **correction: Any,
    ) -> None:
        if labels_key is None:
            raise ValueError(f"site {site!r}: a federation needs cell types: name their column as labels_key")
        if min_cells < 1:
            raise ValueError(f"min_cells={min_cells}: at least 1")
        check_choice(correction.get("unlabeled", "knn"), Unlabeled, "treatment of unlabeled cells")
        self.site = site
        self.model: FedSCGEN | None = None
        self.corrected: AnnData | None = None
        self.history: list[dict[str, Any]] = []
        self.ledger = PrivacyLedger() if ledger is None else ledger
        self._adata = adata
        self._keys = DataKeys(batch_key, labels_key, layer, unlabeled_category=unlabeled_category)
        self._names = LabelNames(label_salt)
        self._contributor = contributor
        self._min_cells = min_cells
        self._accelerator = accelerator
        self._correction = correction
        self._settings: dict[str, Any] = {}
        self._randomness = _Randomness(0)
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
        answer = self._answer(message)
        if "round" in message.meta:
            answer = Message(answer.kind, {**answer.meta, "round": message.meta["round"]}, answer.arrays)
        answered = answer.to_buffer()
        self.ledger.record(self.site, SERVER, answer, len(answered))
        return answered

    def _answer(self, message: Message) -> Message:
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
            self.model.deregister_manager(self.model.adata)

    @property
    def _tasks(self) -> dict[str, Callable[[Message], Contribution]]:
        return {
            COMPONENTS: self._contribute_moments,
            TRAIN: self._train,
            VALIDATE: self._validate,
            REFERENCES: self._contribute_means,
        }

    def _describe(self, message: Message) -> Message:
        """Name the genes, and the cell types of which a batch has enough cells."""
        labels = self._keys.labels_of(self._adata)
        batches = self._keys.categories_of(self._adata, self._keys.batch_key)
        counts = np.zeros((len(batches.categories), len(labels.categories)), dtype=int)
        labelled = labels.codes >= 0
        np.add.at(counts, (batches.codes[labelled], labels.codes[labelled]), 1)
        # sorted, as the order of the names would tell something of them
        reported = sorted(map(self._names.on_the_wire, labels.categories[(counts >= self._min_cells).any(axis=0)]))
        genes = [str(name) for name in self._adata.var_names]
        return Message(DESCRIBE, {"genes": genes, "labels": reported, "hashed": self._names.hashed})

    def _set_up(self, message: Message) -> Message:
        """Build the model on the genes that the sites agreed on."""
        self._settings = dict(message.meta)
        self._randomness = _Randomness(int(message.meta["seed"]))
        copied = padded_copy if message.meta.get("genes_kind") == "union" else working_copy
        working = copied(self._adata, self._keys, message.meta["genes"])
        with self._randomness.in_use(), _warned_before():
            FedSCGEN.setup_anndata(working, **self._keys.of_anndata())
            self.model = FedSCGEN(working, **message.meta["model"])
        return Message(SET_UP, {"ready": True})

    def _contribute_moments(self, message: Message) -> Contribution:
        model = self._ready_model()
        moments = model.get_second_moments(message.arrays[BASIS])
        return Contribution(moments, site_weight(model.n_training_cells(), self._settings["strategy"]))

    def _train(self, message: Message) -> Contribution:
        """Train from the federation's weights; the loss that these had here goes along."""
        began = time.perf_counter()
        model = self._load(message)
        loss = model.get_validation_loss(batch_size=self._settings["batch_size"])
        update = model.train_local(
            self._settings["n_epochs"],
            lr=self._settings["lr"] * self._settings["lr_decay"] ** (message.meta["round"] - 1),
            batch_size=self._settings["batch_size"],
            early_stopping=self._settings["restore_best_epoch"],
            proximal_weight=self._settings["proximal_weight"],
            accelerator=self._accelerator,
        )
        self._note_epochs(int(message.meta["round"]), time.perf_counter() - began)
        arrays = {**to_summable(update.weights), VALIDATION_LOSS: np.asarray(loss)}
        return Contribution(arrays, site_weight(update.n_cells, self._settings["strategy"]))

    def _validate(self, message: Message) -> Contribution:
        model = self._load(message)
        loss = model.get_validation_loss(batch_size=self._settings["batch_size"])
        weight = site_weight(model.n_training_cells(), self._settings["strategy"])
        return Contribution({VALIDATION_LOSS: np.asarray(loss)}, weight)

    def _contribute_means(self, message: Message) -> Contribution:
        """Counts and mean latent vectors of the asked cell types, from batches with enough cells of them."""
        stats = align_labels(self._load(message).get_label_stats(), self._own_names(message.meta["labels"]))
        counts = np.where(stats.counts >= self._min_cells, stats.counts, 0).astype(np.float64)  # (B, L)
        if message.meta["reference"] == "mean":
            sums = np.einsum("bl,bld->ld", counts, stats.means)
            return Contribution({"counts": counts.sum(axis=0), "sums": sums})
        dominant, columns = counts.argmax(axis=0), np.arange(counts.shape[1])
        means = np.where(counts[..., None] > 0, stats.means, 0.0)  # (B, L, n_latent); those of few cells stay here
        return Contribution({"counts": counts[dominant, columns], "means": means[dominant, columns]})

    def _correct(self, message: Message) -> Message:
        """Correct this site's cells; types that no other site holds are aligned among the site's own batches."""
        model = self._load(message)
        sent = References.from_json(message.meta["references"])
        model.references = replace(sent, labels=tuple(self._own_names(sent.labels)))
        references = self._with_own(model.references, model)
        with _warned_before():
            self.corrected = self._corrected(model, references)
        return Message(CORRECT, {"done": True})

    def _corrected(self, model: FedSCGEN, references: References) -> AnnData:
        if set(model.genes) <= set(self._adata.var_names):
            return model.correct(self._adata, references=references, **self._correction)
        on_all_genes = model.correct(references=references, **self._correction)
        return unpadded(self._adata, on_all_genes, self._correction.get("expression", CORRECTED_LAYER))

    def _own_names(self, labels: Iterable[str]) -> list[str]:
        return self._names.at_the_site(labels, self._keys.labels_of(self._adata).categories)

    def _with_own(self, references: References, model: FedSCGEN) -> References:
        """Add references of the site's own choice for types that only its batches share."""
        if self._keys.batch_key is None:
            return references
        try:
            return merge_references(references, model.get_references())
        except NoSharedLabelError:
            return references

    def _load(self, message: Message) -> FedSCGEN:
        """Load the weights that come with a message; a model that has no statistics of its own yet takes all."""
        model = self._ready_model()
        model.load_weights(message.arrays, self._settings["batchnorm"] if model.is_trained_ else "pooled")
        return model

    def _ready_model(self) -> FedSCGEN:
        if self.model is None:
            raise ValueError(f"site {self.site!r} has no model yet: the server must send its settings first")
        return self.model

    def _note_epochs(self, round_: int, seconds: float) -> None:
        history = self._ready_model().history
        n_new = len(history["train_loss"]) - len(self.history)
        losses = {name: history[name].iloc[-n_new:, 0].astype(float) for name in ("train_loss", VALIDATION_LOSS)}
        for epoch in range(n_new):
            values = {name: float(column.iloc[epoch]) for name, column in losses.items()}
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
def _warned_before() -> Iterator[None]:
    """Not to say again what was said of the site's data when the client was made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
