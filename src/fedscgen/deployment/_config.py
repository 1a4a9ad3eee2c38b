"""What a site and a coordinator configure, as values that files hold; both are read strictly."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fedscgen._options import check_fields, read_options
from fedscgen.deployment._aggregators import find_star_aggregator
from fedscgen.deployment._trust import read_trust
from fedscgen.federation import SERVER, CorrectionOptions, FederationSettings, SiteOptions, SitePolicy, Workflow


@dataclass(frozen=True)
class SiteConfig:
    """What a site decides for itself; no coordinator can change any of it.

    :func:`fedscgen.deployment.read_options` reads it from one flat table, the fields of ``options``, ``correction`` and
    ``policy`` among the others.

    Parameters
    ----------
    site
        The site's name, unique in the federation; not ``"server"``, which is the coordinator's in privacy ledgers.
    data
        Path of its cells, log-normalised, an ``.h5ad`` file.
    output
        Folder for its results, with a folder in it for each run. Nobody but the site reads or writes there.
    options
        What is where in the file, and the size from which the site reports a cell type.
    correction
        How the site corrects its cells.
    policy
        What the site agrees to send. By default it takes part in masked sums alone.
    accelerator
        Where to train, as Lightning names it: ``"cpu"``, ``"gpu"``, ``"auto"``.
    seed
        Of the site's own random numbers, to repeat a run. None: of the operating system's randomness; who knows the
        seed knows which of the site's cells it trains on.
    label_salt_file
        File with a secret that all sites share and the coordinator doesn't know: cell types then travel as keyed
        hashes, which the coordinator can't read; its model names them so, each site's model has the site's own names.
        None: they travel by name.
    label_map
        File with the federation's name of each cell type by the site's own, as ``fedscgen check`` proposes it. The
        site's column stays, and the federation works on ``obs["fedscgen_common_type"]``. None: the site's names are
        the federation's.
    identity
        File with the key that the site is known by to the others; it is made if there is none. Relative to ``output``.
    trusted_sites
        File with the fingerprint of every other site, as ``fedscgen site trust`` writes it; relative to ``output``.
    allow_unknown_sites
        Believe the coordinator who the other sites are, whoever is not in ``trusted_sites``. It could then invent them.
    socket
        Where the site's service listens: the path of a socket, in a folder that the SuperNode's user can enter. None:
        beside the output, with its name and ``.sock``.
    socket_group
        Group whose members may connect to the socket, by name or number: the service's user and the SuperNode's are in
        it. Empty: the group of the service's user.
    idle_timeout
        Seconds after which the memory of a run is freed if nothing is heard of it. It goes on from the disk if a
        message comes.

    Raises
    ------
    ValueError
        A value is of the wrong type, empty or out of range; the message names it.
    """

    site: str
    data: Path
    output: Path
    options: SiteOptions = field(default_factory=SiteOptions)
    correction: CorrectionOptions = field(default_factory=CorrectionOptions)
    policy: SitePolicy = field(default_factory=lambda: SitePolicy(aggregators=("masked",)))
    accelerator: str = "auto"
    seed: int | None = None
    label_salt_file: Path | None = None
    label_map: Path | None = None
    identity: Path = Path("identity.key")
    trusted_sites: Path = Path("trusted_sites.toml")
    allow_unknown_sites: bool = False
    socket: Path | None = None
    socket_group: str = ""
    idle_timeout: float = 7200.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.site:
            raise ValueError("site='': give the site a name of its own")
        if self.site == SERVER:
            raise ValueError(f"site={SERVER!r} is the coordinator's name in ledgers: give the site a name of its own")
        _check_positive(self, "idle_timeout")
        if self.label_map is not None and self.options.labels_key is None:
            raise ValueError(f"label_map={self.label_map}, but no cell has a label: name labels_key, or leave it out")

    def read_trusted_sites(self) -> dict[str, str] | None:
        """Fingerprint of every other site by name; nothing where the coordinator is believed."""
        return None if self.allow_unknown_sites else read_trust(self.output / self.trusted_sites)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a site's file, such as ``fedscgen site init`` writes.

        Parameters
        ----------
        path
            A file in TOML.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            It isn't TOML, or something in it is unknown, missing or out of range; the message names it.
        """
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not TOML: {error}") from error
        return read_options(cls, given, str(path))

    def find_socket(self) -> Path:
        """Where the site's service listens."""
        return self.output.with_name(f"{self.output.name}.sock") if self.socket is None else self.socket

    def read_label_salt(self) -> str | None:
        """The secret that cell types are hashed with.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file holds nothing.
        """
        if self.label_salt_file is None:
            return None
        salt = self.label_salt_file.read_text(encoding="utf-8").strip()
        if not salt:
            raise ValueError(f"label-salt-file={self.label_salt_file} is empty: put a secret of all sites there")
        return salt


@dataclass(frozen=True)
class CoordinatorConfig:
    """What the coordinator decides.

    :func:`fedscgen.deployment.read_options` reads it from one flat table, the fields of ``settings`` among the others;
    :func:`fedscgen.deployment.write_options` writes such a table, with an explanation of each.

    Parameters
    ----------
    workflow
        ``"training"``; ``"correction"`` of sites that come later, by a trained model; or ``"check"``, before any
        training, of what sites have in common and what stands in the way.
    n_sites
        Sites that are waited for before it begins.
    sites
        Names of the sites that take part, in a file with commas between them; if there are none, all that are
        connected.
    secure
        How sums over the sites are opened. ``"masked"``: only the sum is seen; ``"plain"``: every site's part, for
        study only; or another registered aggregator whose sites talk only to the coordinator.
    join_timeout
        Seconds that sites are waited for before it begins.
    answer_timeout
        Seconds that a site has for one answer; one that takes longer is left out of the round.
    output
        Folder for the coordinator's results, seen from where its program was started unless the path is absolute.
    trained_model
        Folder of the model that a training has written, for a correction; None for a training.
    init_model
        What a training begins with, seen from where the program was started unless the path is absolute: the folder of
        a model, or a file with weights of the published network. The federation works on its genes. None: random
        weights.
    allow_insecure_channel
        Run though the connection to the sites isn't encrypted: only where something else protects it.
    settings
        What all sites do alike. By default it begins with the seed 0.

    Raises
    ------
    ValueError
        A value is of the wrong type, out of range or no choice, or two don't fit together; the message names them.
    """

    workflow: Workflow = "training"
    n_sites: int = 3
    sites: tuple[str, ...] = ()
    secure: str = "masked"
    join_timeout: float = 600.0
    answer_timeout: float = 3600.0
    output: Path = Path("fedscgen_result")
    trained_model: Path | None = None
    init_model: Path | None = None
    allow_insecure_channel: bool = False
    settings: FederationSettings = field(default_factory=lambda: FederationSettings(seed=0))

    def __post_init__(self) -> None:
        check_fields(self)
        find_star_aggregator(self.secure)
        _check_positive(self, "join_timeout", "answer_timeout")
        if not self.settings.least_of(self.n_sites) <= self.n_sites:
            raise ValueError(f"min_sites={self.settings.min_sites}: at most n_sites={self.n_sites}")
        n_named = len(set(self.sites))
        if self.sites and n_named < self.n_sites:
            raise ValueError(
                f"n_sites={self.n_sites}, but sites={self.sites} names {n_named}, and no other may take part: "
                f"name all of them, or set n_sites={n_named} or less"
            )
        if self.workflow == "correction" and self.trained_model is None:
            raise ValueError("workflow='correction' needs trained_model: the folder that a training has written")

    @property
    def reveals_counts(self) -> bool:
        """Whether the coordinator comes to see how many cells of each type a site has; in a check, whether it would."""
        shows_terms = find_star_aggregator(self.secure).shows_terms
        return self.workflow != "correction" and (shows_terms or self.settings.reference == "dominant")


def _check_positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name}={getattr(config, name)}: must be above 0")
