import pytest

from fedscgen.prepare import PrepareOptions, prepare
from raw_counts import real_counts


@pytest.fixture(scope="module")
def hospitals():
    """Three sites of prepared cells that agree on everything."""
    prepared = prepare(real_counts(), PrepareOptions(min_genes=0, max_mito=None))
    return {name: prepared[i::3].copy() for i, name in enumerate("abc")}
