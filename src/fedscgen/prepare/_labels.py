"""What sites call their cell types, and what the federation does."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fedscgen._categories import trim
from fedscgen._files import write_whole
from fedscgen._spelling import find_meaning, look_alike, simplify

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData

COMMON_LABELS_KEY = "fedscgen_common_type"
"""Column of ``obs`` with the cell types as the federation calls them."""

_TABLE = "labels"
_HEAD = """\
# What the federation calls cell types: own name = common name. Names that aren't here stay as they are.
# Sites keep their own names in their column; give every site this file.
"""


@dataclass(frozen=True)
class LabelProposal:
    """Which cell types of several sites seem to be one.

    Parameters
    ----------
    sure
        Common name by own name: they differ by spelling, or are known synonyms.
    doubtful
        Common name by own name: they differ by a few letters, and somebody has to look.
    """

    sure: Mapping[str, str] = field(default_factory=dict)
    doubtful: Mapping[str, str] = field(default_factory=dict)

    def extend(self, known: Mapping[str, str]) -> LabelProposal:
        """What is known already, and this besides, which was found among the common names."""
        both = {own: self.sure.get(common, common) for own, common in known.items()}
        return LabelProposal({**both, **self.sure}, self.doubtful)


def propose_labels(names: Mapping[str, Sequence[str]]) -> LabelProposal:
    """Find cell types that sites call by different names.

    Names that differ by case, spaces, punctuation, plural and the word "cell" are one, and so are names and ids of the
    Cell Ontology that a small table knows as synonyms. The common name is the one that most sites use.

    Parameters
    ----------
    names
        Of the cell types, by site.
    """
    n_sites = Counter(name for own in names.values() for name in dict.fromkeys(own))
    by_meaning: dict[str, list[str]] = {}
    for name in n_sites:
        by_meaning.setdefault(find_meaning(name), []).append(name)
    common = {meaning: max(group, key=lambda name: _rank(name, n_sites)) for meaning, group in by_meaning.items()}
    sure = {name: common[meaning] for meaning, group in by_meaning.items() for name in group if name != common[meaning]}
    doubtful: dict[str, str] = {}
    kept = sorted(common.values(), key=lambda name: -n_sites[name])
    for i, name in enumerate(kept):
        alike = [other for other in kept[:i] if other not in doubtful and look_alike(simplify(name), simplify(other))]
        if alike:
            doubtful[name] = alike[0]
    return LabelProposal(sure, doubtful)


def _rank(name: str, n_sites: Counter[str]) -> tuple[int, bool]:
    """Names of more sites come first, and ids of an ontology last."""
    return n_sites[name], not simplify(name).startswith("CL:")


def read_label_map(path: str | PathLike[str]) -> dict[str, str]:
    """Read what the federation calls cell types, by a site's own names.

    Parameters
    ----------
    path
        A TOML file with the table ``[labels]``, as :func:`write_label_map` makes it.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It isn't TOML, has something else, or a common name is renamed again; the message names it.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    unknown = [name for name in content if name != _TABLE]
    if unknown or not isinstance(content.get(_TABLE), dict):
        raise ValueError(f"{path}: expected the table [{_TABLE}] alone" + (f", not {unknown[0]!r}" if unknown else ""))
    labels: dict[str, str] = content[_TABLE]
    for own, common in labels.items():
        if not isinstance(common, str) or not common:
            raise ValueError(f"{path}: {own!r} = {common!r}: expected the common name, as text")
        if labels.get(common, common) != common:
            raise ValueError(f"{path}: {own!r} = {common!r}, which is {labels[common]!r} itself: write this for both")
    return labels


def write_label_map(path: str | PathLike[str], proposal: LabelProposal) -> None:
    """Write a proposal for a person to look at: what is doubtful is a comment.

    Parameters
    ----------
    path
        The file to write or replace.
    proposal
        See :func:`propose_labels`.
    """
    lines = [_HEAD, f"[{_TABLE}]\n", *(_as_line(*pair) for pair in proposal.sure.items())]
    if proposal.doubtful:
        lines.append("\n# These differ by a few letters. Remove the # of those that are one type.\n")
        lines += [f"# {_as_line(*pair)}" for pair in proposal.doubtful.items()]
    write_whole(Path(path), "".join(lines).encode())


def add_common_labels(adata: AnnData, label_map: Mapping[str, str], *, labels_key: str = "cell_type") -> str:
    """Add ``obs["fedscgen_common_type"]``, the cell types as the federation calls them, and return this key.

    The column with the site's own names stays. Missing labels stay missing.

    Parameters
    ----------
    adata
        A site's cells.
    label_map
        Common name by own name. Others stay as they are.
    labels_key
        Column of ``obs`` with the site's own names.

    Raises
    ------
    KeyError
        There is no such column.
    """
    if labels_key not in adata.obs:
        there = ", ".join(map(repr, adata.obs.columns)) or "none"
        raise KeyError(f"obs[{labels_key!r}] not found; there are {there}: name the column with the cell types")
    adata.obs[COMMON_LABELS_KEY] = pd.Categorical(to_common(adata.obs[labels_key], label_map))
    return COMMON_LABELS_KEY


def to_common(labels: Iterable[object], label_map: Mapping[str, str]) -> list[str | None]:
    """Common names of labels; missing ones stay so.

    Parameters
    ----------
    labels
        A site's own names.
    label_map
        Common name by own name.
    """
    return [None if pd.isna(name) else label_map.get(str(name), label_map.get(trim(str(name)), str(name)))
            for name in labels]  # fmt: skip


def _as_line(own: str, common: str) -> str:
    return f"{json.dumps(own, ensure_ascii=False)} = {json.dumps(common, ensure_ascii=False)}\n"
