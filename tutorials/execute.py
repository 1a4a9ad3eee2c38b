"""Execute the tutorials and keep what they show: ``python tutorials/execute.py [NAME ...]``.

Needs the package with its extras ``benchmark``, ``doc`` and ``masked``. A notebook that fails or warns is an
error; what is kept names no machine, and no time.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
LONGEST_SECONDS, MOST_BYTES = 300, 400_000
# of libraries that deprecate what others of them use; whatever fedscgen warns of is shown
QUIET = [
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore::PendingDeprecationWarning",
    "ignore:IProgress not found",
]
SEEDED = "Seed set to 0"  # Lightning's answer to scvi.settings.seed = 0
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main(names: list[str]) -> None:
    """Execute those named, or all."""
    os.environ.update(PYTHONWARNINGS=",".join(QUIET), TQDM_DISABLE="1")
    for path in [HERE / f"{name}.ipynb" for name in names] or sorted(HERE.glob("*.ipynb")):
        execute(path)


def execute(path: Path) -> None:
    """Run a notebook from its first cell to its last, in a folder without anything, and write it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    NotebookClient(notebook, timeout=LONGEST_SECONDS).execute()
    seconds = time.monotonic() - start
    for cell in notebook.cells:
        cell.metadata = {}
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("text", "").strip() != SEEDED]
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise RuntimeError(f"{path.name} says on stderr: {output['text']}")
            output.pop("transient", None)
            if "metadata" in output:
                output["metadata"] = {}
    notebook.metadata = METADATA
    text = nbformat.writes(notebook) + "\n"
    if seconds > LONGEST_SECONDS or len(text) > MOST_BYTES:
        raise RuntimeError(f"{path.name} took {seconds:.0f} s and has {len(text)} bytes: make it smaller")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
