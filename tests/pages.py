"""Code that stands in the documentation."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read_blocks(path, language, heading=None):
    """Code blocks of a Markdown page, or of its section with that heading."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if heading is not None:
        (text,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
