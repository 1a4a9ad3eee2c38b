import pytest

from measured_cells import one_thread  # noqa: F401  (a fixture)
from pages import read_blocks


@pytest.fixture
def linear(monkeypatch):
    """The model of docs/extending.md, which is forgotten afterwards."""
    from fedscgen.federation import _models

    monkeypatch.setattr(_models._models, "_values", dict(_models._models._values))
    exec(read_blocks("docs/extending.md", "python", "A new model")[0], {})  # noqa: S102  (our own page)
