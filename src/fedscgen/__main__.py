"""``python -m fedscgen``: the command line, where its program isn't on the path."""

from fedscgen.cli import app

app(prog_name="python -m fedscgen")
