"""Sites for these tests; and where Flower isn't installed, every module is skipped, with a reason."""

from importlib.util import find_spec

import pytest

from site_programs import cells, configure, make_site  # noqa: F401


class NeedsFlower(pytest.Module):
    """A module of tests that is not imported."""

    def collect(self):
        pytest.skip("needs flwr: the extra fedscgen[flower]", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return NeedsFlower.from_parent(parent, path=module_path) if find_spec("flwr") is None else None
