"""How Sphinx builds the documentation."""

import tomllib
import zlib
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import numpy.typing as npt
from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring

from fedscgen import __version__

HERE = Path(__file__).parent

project = "fedscgen"
author = "The fedscgen developers"
copyright = author
release = __version__
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
bibtex_bibfiles = ["references.bib"]
templates_path = ["_templates"]
exclude_patterns = ["_build", "Thumbs.db", ".DS_Store"]
# autosummary writes its pages with the first of these
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

autosummary_generate = True
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
typehints_defaults = "braces"
always_use_bars_union = True
typehints_document_rtype_none = False

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"  # prompts and what is printed
nb_execution_mode = "off"  # tutorials/execute.py has executed them

nitpicky = True
suppress_warnings = ["config.cache"]  # of a formatter, which is a function
nitpick_ignore = [("py:class", "Step")]  # a Literal of strings
# what is private has no page; of a published class, its public methods have
nitpick_ignore_regex = [("py:.*", r"(fedscgen\..*\._|fedscgen\._).*")]

html_theme = "sphinx_book_theme"
html_title = f"fedscgen {release}"
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True, "navbar_persistent": []}


def show_tutorials() -> None:
    """Copy the notebooks to where Sphinx looks for pages, with links as they are from there."""
    target = HERE / "generated" / "tutorials"
    target.mkdir(parents=True, exist_ok=True)
    for notebook in (HERE.parent / "tutorials").glob("*.ipynb"):
        text = notebook.read_text(encoding="utf-8")
        (target / notebook.name).write_text(text.replace("](../docs/", "](../../"), encoding="utf-8")


def write_inventories() -> dict[str, tuple[str, str]]:
    """Write the inventories of other projects' names in Sphinx's format, and tell intersphinx where they are."""
    folder = HERE / "generated" / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, names in tomllib.loads((HERE / "inventories.toml").read_text(encoding="utf-8")).items():
        base = names.pop("base")
        lines = [f"{name} py:{kind} 1 {page} -" for (kind, name), page in ((key.split(), names[key]) for key in names)]
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The rest is compressed with zlib.\n"
        path = folder / f"{project}.inv"
        path.write_bytes(head.encode() + zlib.compress("\n".join(lines).encode() + b"\n"))
        mapping[project] = (base, str(path))
    return mapping


def name_array_like(annotation: Any, _config: object) -> str | None:
    """Call what numpy makes arrays of by its name, instead of by the dozen types that it is; in a union, too."""
    whole, parts = set(get_args(npt.ArrayLike)), get_args(annotation)
    if get_origin(annotation) not in (Union, UnionType) or not whole <= set(parts):
        return None
    others = [one for one in parts if one not in whole]
    named = [f":py:class:`~{one.__module__}.{one.__qualname__}`" for one in others if one is not type(None)]
    return " | ".join([":py:data:`~numpy.typing.ArrayLike`", *named, *(["None"] if type(None) in others else [])])


def returns_as_prose(self: NumpyDocstring, section: str) -> list[str]:
    """Keep a Returns section as the text that it is; napoleon would take its first line for a type."""
    return [*self._format_block(":returns: ", self._dedent(self._consume_to_next_section())), ""]


def attribute_as_prose(self: NumpyDocstring, _section: str = "") -> list[str]:
    """Keep an attribute's text as it is; napoleon would take what stands before a colon for a type."""
    return self._dedent(self._consume_to_end())


intersphinx_mapping = write_inventories()
typehints_formatter = name_array_like


def setup(app: Sphinx) -> None:
    """Prepare what the extensions above don't do."""
    show_tutorials()
    NumpyDocstring._parse_attribute_docstring = attribute_as_prose
    NumpyDocstring._parse_returns_section = returns_as_prose
