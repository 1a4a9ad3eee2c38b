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
        _check_number(entry, policy, self._path.name)
        _check_sites(entry["sites"], sites, policy)

    def count(
        self, sites: Sequence[str], policy: SitePolicy, *, group: str | None = None, present: Sequence[str] = ()
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

        Raises
        ------
        PolicyError
            As :meth:`check`: another run may have been counted since. Or it is a group's sum over other sites.
        """
        content, entry = self._read()
        _check_number(entry, policy, self._path.name)
        for known, now in ((entry["sites"], sites), (entry["groups"].setdefault(group, []) if group else [], present)):
            _check_sites(known, now, policy)
            if sorted(now) not in known:
                known.append(sorted(now))
        entry["n_sums"] += 1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, json.dumps(content, indent=1).encode())

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All of the file, and in it what is of these cells."""
        content: dict[str, Any] = json.loads(self._path.read_bytes()) if self._path.exists() else {}
        entry = content.setdefault(self._cells, {})
        for name, nothing in (("n_sums", 0), ("sites", []), ("groups", {})):
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
