"""What a data-protection officer checks before and after a run, drawn from a site's privacy ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from fedscgen.federation import PrivacyLedger
from fedscgen.secure import Protection

if TYPE_CHECKING:
    from pathlib import Path

_TYPES = dict.fromkeys(PrivacyLedger.columns, "str") | {"bytes": "int64"}


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
    rows = pd.read_csv(ledger, dtype=_TYPES, keep_default_na=False)  # a site may be called "NA"
    if list(rows.columns) != PrivacyLedger.columns:
        raise ValueError(f"{ledger} is no privacy ledger: its columns are {', '.join(map(str, rows.columns))}")
    rows["protection"] = rows["protection"].replace("", Protection.NONE.value)
    sent = rows[rows["sender"] == site]
    if sent.empty:
        raise ValueError(f"{ledger} has nothing that site {site!r} sent: its senders are {sorted(set(rows['sender']))}")
    kinds = sent.groupby(["kind", "protection", "shape"], sort=False)["bytes"].agg(["count", "sum"]).reset_index()
    lines = [
        _line(kind, protection, shape, n, size) for kind, protection, shape, n, size in kinds.itertuples(index=False)
    ]
    received = rows.loc[rows["receiver"] == site, "bytes"].sum()
    return "\n".join(
        [
            f"# What has left site {site}",
            "",
            f"{len(sent)} messages, {sent['bytes'].sum():,} bytes, to {', '.join(sorted(set(sent['receiver'])))}; "
            f"{received:,} bytes have come in. Cells, their latent vectors and corrected expression are in no message.",
            "",
            *lines,
            "- [ ] The bytes agree with the firewall's log, except for less than one percent that the transport adds.",
            "- [ ] `aggregators`, `reveal-counts` and `min-sites` in the site's own command are what was agreed.",
        ]
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
