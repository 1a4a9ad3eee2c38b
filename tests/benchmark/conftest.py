import pytest

from fedscgen import federation
from measured_cells import one_thread  # noqa: F401  (a fixture)
from pages import read_blocks

LINEAR = "linear, benchmarked"


@pytest.fixture
def linear(monkeypatch):
    """Name of the model of docs/extending.md; its own stays free for tests that register it."""
    register = federation.register_model
    monkeypatch.setattr(federation, "register_model", lambda _, model: register(LINEAR, model, overwrite=True))
    exec(read_blocks("docs/extending.md", "python", "A new model")[0], {})  # noqa: S102  (our own page)
    return LINEAR
