"""How Sphinx builds the documentation."""

import os
import shutil
from importlib.metadata import metadata
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring

HERE = Path(__file__).parent

_metadata = metadata("fedscgen")
project = "fedscgen"
author = "The fedscgen developers"
copyright = author
release = _metadata["Version"]
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
]
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
# run where the pages are published, so that they show results; elsewhere the tests run them
nb_execution_mode = "force" if os.environ.get("READTHEDOCS") else "off"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "remove"

html_theme = "sphinx_book_theme"
html_title = f"fedscgen {release}"
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True, "navbar_persistent": []}


def show_tutorials() -> None:
    """Copy the notebooks to where Sphinx looks for pages; they live at the top of the repository."""
    target = HERE / "generated" / "tutorials"
    target.mkdir(parents=True, exist_ok=True)
    for notebook in (HERE.parent / "tutorials").glob("*.ipynb"):
        shutil.copyfile(notebook, target / notebook.name)


def returns_as_prose(self: NumpyDocstring, section: str) -> list[str]:
    """Keep a Returns section as the text that it is; napoleon would take its first line for a type."""
    return [*self._format_block(":returns: ", self._dedent(self._consume_to_next_section())), ""]


def setup(app: Sphinx) -> None:
    """Prepare what the extensions above don't do."""
    show_tutorials()
    NumpyDocstring._parse_returns_section = returns_as_prose
