"""What a site's cells were asked over all runs: the site's own count, in a file."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from fedscgen._files import write_whole
from fedscgen.federation._policy import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from fedscgen.federation._policy import SitePolicy


class CellsRecord:
    """Counts the sums that cells have contributed to, and remembers with which sites.

    Parameters
    ----------
    path
        A JSON file. Whoever deletes it lets the count begin anew.
    cell_names
        Names of the cells, by which they are known again.
    """

    def __init__(self, path: Path, cell_names: Iterable[str]) -> None:
        self._path = path
        self._cells = hashlib.sha256("\n".join(sorted(cell_names)).encode()).hexdigest()

    def check(self, sites: Sequence[str], policy: SitePolicy) -> None:
        """Refuse a run in which these cells would be asked too much.

        Raises
        ------
        PolicyError
            They have contributed to as many sums as the policy allows; or to sums over other sites, from which these
            ones would differ by a site's own part.
        """
        entry = self._read()[1]
        if entry["n_sums"] >= policy.max_sums:
            raise PolicyError(
                f"these cells have contributed to {entry['n_sums']} sums, and the site allows {policy.max_sums}: to go "
                f"on, the site itself must raise max_sums in its policy (the count is in its file {self._path.name})"
            )
        others = [known for known in entry["sites"] if known != sorted(sites)]
        if others and not policy.other_sites:
            raise PolicyError(
                f"these cells have contributed to sums over {', '.join(others[0])}: sums over {', '.join(sites)} would "
                "differ from them by single sites' own parts; to take part, the site itself must set other_sites"
            )

    def count(self, sites: Sequence[str], policy: SitePolicy) -> None:
        """Take down one more sum, before anything of it is sent.

        Raises
        ------
        PolicyError
            It is one too many.
        """
        content, entry = self._read()
        if entry["n_sums"] >= policy.max_sums:
            raise PolicyError(f"these cells have contributed to {entry['n_sums']} sums: max_sums allows no more")
        entry["n_sums"] += 1
        if sorted(sites) not in entry["sites"]:
            entry["sites"].append(sorted(sites))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, json.dumps(content, indent=1).encode())

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All of the file, and in it what is of these cells."""
        content: dict[str, Any] = json.loads(self._path.read_bytes()) if self._path.exists() else {}
        return content, content.setdefault(self._cells, {"n_sums": 0, "sites": []})
