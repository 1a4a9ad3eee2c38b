"""What a data-protection officer checks before and after a run, drawn from a site's privacy ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen.federation import PrivacyLedger, check_ledger, read_ledger
from fedscgen.secure import Protection

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def checklist(ledger: Path, site: str) -> str:
    """All that a site has sent, as a list to tick off, in Markdown.

    A message whose protection isn't said counts as not protected.

    Parameters
    ----------
    ledger
        The site's ``ledger.csv``.
    site
        Its name.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no ledger, has a word that is no :class:`~fedscgen.secure.Protection`, or nothing that the site has sent.
    """
    rows = read_ledger(ledger)
    rows["protection"] = rows["protection"].replace("", Protection.NONE.value)
    rows["bytes"] = rows["bytes"].astype("int64")
    sent, received = rows[rows["sender"] == site], rows[rows["receiver"] == site]
    if sent.empty:
        raise ValueError(f"{ledger} has nothing that site {site!r} sent: its senders are {sorted(set(rows['sender']))}")
    return "\n".join(
        [
            f"# What has left site {site}",
            "",
            f"{len(sent)} messages, {sent['bytes'].sum():,} bytes, to {', '.join(sorted(set(sent['receiver'])))}; "
            f"{received['bytes'].sum():,} bytes have come in.",
            "",
            *_list_sent(sent),
            "",
            "What the site was asked, which decides what a sum can tell of single cells:",
            "",
            *_list_received(received),
            "",
            _tell_chain(ledger),
            "- [ ] The bytes agree with the firewall's log, except for less than one percent that the transport adds.",
            "- [ ] `aggregators`, `reveal-counts` and `min-sites` in the site's own command are what was agreed.",
        ]
    )


def _list_sent(sent: pd.DataFrame) -> list[str]:
    kinds = sent.groupby(["kind", "protection", "shape"], sort=False)["bytes"].agg(["count", "sum"]).reset_index()
    return [
        _line(kind, protection, shape, n, size) for kind, protection, shape, n, size in kinds.itertuples(index=False)
    ]


def _list_received(received: pd.DataFrame) -> list[str]:
    times = received.groupby("kind", sort=False)["bytes"].agg(["count", "sum"]).reset_index()
    return [
        f"- [ ] {kind}: {n} messages of {size:,} bytes together, as many as were agreed"
        for kind, n, size in times.itertuples(index=False)
    ]


def _tell_chain(ledger: Path) -> str:
    """Whether the file is as it was written."""
    try:
        found = check_ledger(ledger)
    except ValueError:
        return "- [ ] **The ledger has no chain**, as of a simulation: nobody can tell whether it was altered."
    if found.fault:
        return f"- [ ] **The ledger is not as it was written: {found.fault}.**"
    cut = " A last line was not written to its end, as when a machine stops." if found.unfinished else ""
    return (
        f"- [ ] The ledger's {found.n_rows} rows are chained: none is altered, missing or out of order.{cut} The last "
        f"chain is `{found.head}`: it is the one that was noted, if rows were not cut off at the end."
    )


def _line(kind: str, protection: str, shape: str, n: int, size: int) -> str:
    explanation = _explain(protection, shape)
    return f"- [ ] {kind} ({shape}), {n} times, {size:,} bytes, protection `{protection}`: {explanation}"


def _explain(word: str, shape: str) -> str:
    protection = Protection(word)
    if not protection.readable:
        return protection.explanation
    if shape == PrivacyLedger.without_arrays:
        return f"{protection.explanation}; {PrivacyLedger.without_arrays}, no numbers of cells"
    return f"**{protection.explanation}**: was that agreed?"
