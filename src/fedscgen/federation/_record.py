"""What a site's cells were asked over all runs: the site's own count, in a file."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedscgen._files import write_whole
from fedscgen.federation._policy import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from fedscgen.federation._policy import SitePolicy


@dataclass(frozen=True)
class Asked:
    """How much a sum opens that is a sum of whole cells.

    Parameters
    ----------
    name
        The same for questions whose answers are the same. Empty: for all whose answers differ each time.
    n_vectors
        How many sums of cells, each with other weights.
    n_cells
        Training cells of all sites, at least.
    """

    name: str
    n_vectors: int
    n_cells: int


class CellsRecord:
    """Counts the sums that cells have contributed to, and remembers with which sites.

    Parameters
    ----------
    path
        A JSON file. Whoever deletes it lets the count begin anew.
    cell_names
        Names of the cells, by which they are known again.
    n_genes
        That they have, of which a run may ask some and the next one others.
    """

    def __init__(self, path: Path, cell_names: Iterable[str], n_genes: int) -> None:
        self._path = path
        self._n_genes = n_genes
        self._cells = hashlib.sha256("\n".join(sorted(cell_names)).encode()).hexdigest()

    def find_seed(self) -> int:
        """The seed of what is drawn of these cells, in all runs, for their differences to show no cells.

        Were others chosen for training in every run, sums over them would come to span all cells.
        """
        content, entry = self._read()
        if "seed" not in entry:
            entry["seed"] = secrets.randbelow(2**32)
            self._write(content)
        seed: int = entry["seed"]
        return seed

    def check(self, sites: Sequence[str], policy: SitePolicy) -> None:
        """Refuse a run in which these cells would be asked too much.

        Raises
        ------
        PolicyError
            They have contributed to as many sums as the policy allows; or to sums over other sites, from which these
            ones would differ by a site's own part.
        """
        entry = self._read()[1]
        _check_number(entry, policy, self._path.name)
        _check_sites(entry["sites"], sites, policy)

    def count(
        self,
        sites: Sequence[str],
        policy: SitePolicy,
        *,
        group: str | None = None,
        present: Sequence[str] = (),
        asked: Asked | None = None,
    ) -> None:
        """Take down one more sum, before anything of it is sent.

        Parameters
        ----------
        sites
            Those of the run.
        policy
            The site's.
        group
            Of sums that the cells alone decide; see :class:`fedscgen.secure.Contribution`.
        present
            The sites in this sum, which may be fewer than those of the run.
        asked
            What it opens of all cells.

        Raises
        ------
        PolicyError
            As :meth:`check`: another run may have been counted since. Or it is a group's sum over other sites, or
            single cells could be computed from it and those before.
        """
        content, entry = self._read()
        _check_number(entry, policy, self._path.name)
        for known, now in ((entry["sites"], sites), (entry["groups"].setdefault(group, []) if group else [], present)):
            _check_sites(known, now, policy)
            if sorted(now) not in known:
                known.append(sorted(now))
        if asked is not None:
            before = 0 if asked.name else entry["vectors"].get("", 0)
            entry["vectors"][asked.name] = before + asked.n_vectors
            self._check_vectors(sum(entry["vectors"].values()), asked.n_cells, policy)
        entry["n_sums"] += 1
        self._write(content)

    def _check_vectors(self, n_vectors: int, n_cells: int, policy: SitePolicy) -> None:
        """Refuse sums of cells that come near to spanning all cells.

        Of fewer cells than genes, these are the sparse vectors in what the sums span, and a linear program finds them.
        """
        if policy.few_cells or self._n_genes <= n_cells or n_vectors <= n_cells / 2:
            return
        raise PolicyError(
            f"{n_vectors} sums of whole cells would be open of perhaps no more than {n_cells} cells with "
            f"{self._n_genes} genes, from which single cells could be computed: to take part, begin with cells of "
            "fewer genes, with a smaller n_latent or more cells, or the site itself must set few_cells in its policy"
        )

    def _write(self, content: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, json.dumps(content, indent=1).encode(), private=True)

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All of the file, and in it what is of these cells."""
        content: dict[str, Any] = json.loads(self._path.read_bytes()) if self._path.exists() else {}
        entry = content.setdefault(self._cells, {})
        for name, nothing in (("n_sums", 0), ("sites", []), ("groups", {}), ("vectors", {})):
            entry.setdefault(name, nothing)
        return content, entry


def _check_number(entry: dict[str, Any], policy: SitePolicy, file: str) -> None:
    if entry["n_sums"] >= policy.max_sums:
        raise PolicyError(
            f"these cells have contributed to {entry['n_sums']} sums, and the site allows {policy.max_sums}: to go on, "
            f"the site itself must raise max_sums in its policy (the count is in its file {file})"
        )


def _check_sites(known: Sequence[list[str]], sites: Sequence[str], policy: SitePolicy) -> None:
    others = [names for names in known if names != sorted(sites)]
    if others and not policy.other_sites:
        raise PolicyError(
            f"these cells have contributed to sums over {', '.join(others[0])}: sums over {', '.join(sites)} would "
            "differ from them by single sites' own parts; to take part, the site itself must set other_sites"
        )
