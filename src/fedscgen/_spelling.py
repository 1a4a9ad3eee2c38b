"""When two names of cell types are likely to mean one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher

_LEAST_LETTERS, _LEAST_RATIO = 6, 0.86
_ID = "CL:"

# columns of obs as people and repositories call them, without case and punctuation
_LABELS = ("celltype", "annotation", "cellontology", "celllabel", "cellclass", "cluster", "majorvoting", "labels")
_BATCHES = ("donor", "patient", "individual", "subject", "batch", "sample", "lane", "library", "origident")

# names that mean the same, with the id in the Cell Ontology; as they are once spelling is taken out
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "CL:0000084": ("t", "t lymphocyte"),
    "CL:0000236": ("b", "b lymphocyte"),
    "CL:0000623": ("nk", "natural killer"),
    "CL:0000451": ("dendritic", "dc"),
    "CL:0000784": ("plasmacytoid dendritic", "pdc"),
    "CL:0000576": ("monocyte", "mono"),
    "CL:0000860": (
        "classical monocyte", "cd14+ monocyte", "cd14+ mono", "cd14 monocyte", "cd14 mono",
        "cd14 positive monocyte", "CL:0001054",
    ),
    "CL:0000875": (
        "non classical monocyte", "nonclassical monocyte", "cd16+ monocyte", "cd16 monocyte", "cd16 mono",
        "fcgr3a+ monocyte", "cd14 low cd16 positive monocyte", "CL:0002396",
    ),
    "CL:0000235": ("macrophage",),
    "CL:0000624": ("cd4+ t", "cd4 t", "cd4 positive alpha beta t"),
    "CL:0000912": ("helper t", "t helper"),
    "CL:0000625": ("cd8+ t", "cd8 t", "cd8 positive alpha beta t"),
    "CL:0000815": ("regulatory t", "t reg", "treg", "t regulatory"),
    "CL:0000037": ("hematopoietic stem", "haematopoietic stem", "hsc"),
    "CL:0000556": ("megakaryocyte", "mk"),
    "CL:0000233": ("platelet", "thrombocyte"),
    "CL:0000232": ("erythrocyte", "red blood", "rbc"),
    "CL:0000786": ("plasma",),
    "CL:0000775": ("neutrophil",),
    "CL:0000097": ("mast",),
    "CL:0000057": ("fibroblast",),
    "CL:0000115": ("endothelial",),
    "CL:0000169": ("beta", "type b pancreatic", "pancreatic beta"),
    "CL:0000171": ("alpha", "pancreatic a", "pancreatic alpha"),
    "CL:0000173": ("delta", "pancreatic d", "pancreatic delta"),
    "CL:0002079": ("ductal", "duct", "pancreatic ductal"),
    "CL:0002064": ("acinar", "pancreatic acinar"),
}  # fmt: skip
_ONTOLOGY = {tuple(sorted(name.split())): id_ for id_, names in _SYNONYMS.items() for name in names}


def simplify(name: str) -> str:
    """The name without case, punctuation, plural and the word cell; what a marker has (+ or -) stays.

    >>> simplify("CD8+_T-Cells")
    'cd8+ t'
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    if identifier := re.fullmatch(r"\s*cl[:_ ](\d{7})\s*", text):
        return f"{_ID}{identifier[1]}"
    text = re.sub(r"\b(cd\d+\w*)-(?=$|[\s/,;)])", r"\1 negative", text)
    words = re.findall(r"\w+\+?", text.replace("_", " "))
    words = [_make_singular(word) for word in words]
    return " ".join([word for word in words if word != "cell"] or words) or text.strip()


def find_meaning(name: str) -> str:
    """The id in the Cell Ontology if it is known, with words in any order, else the simplified name."""
    simple = simplify(name)
    return _ONTOLOGY.get(tuple(sorted(simple.split())), simple)


def is_unknown_id(name: str) -> bool:
    """Whether it is an id of the Cell Ontology of which no synonym is known."""
    meaning = find_meaning(name)
    return meaning.startswith(_ID) and meaning not in _SYNONYMS


def look_alike(one: str, other: str) -> bool:
    """Whether two simplified names differ by so few letters that one may be a slip; never by digits or signs."""
    if min(len(one), len(other)) < _LEAST_LETTERS or re.findall(r"[\d+]", one) != re.findall(r"[\d+]", other):
        return False
    return SequenceMatcher(None, one, other).ratio() >= _LEAST_RATIO


def find_like_labels(columns: Iterable[str]) -> list[str]:
    """Columns whose names say that they hold cell types, or what may be such."""
    return [name for name in columns if any(part in _flatten(name) for part in _LABELS)]


def find_like_batches(columns: Iterable[str], key: str) -> list[str]:
    """Columns that are called like this one of batches, or as columns of batches are."""
    wanted = _flatten(key)
    parts = (wanted, *(_BATCHES if any(part in wanted for part in _BATCHES) else ()))
    return [name for name in columns if any(part in _flatten(name) for part in parts)]


def _flatten(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _make_singular(word: str) -> str:
    if len(word) > 1 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return "treg" if word == "tregs" else word
