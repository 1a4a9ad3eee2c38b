import sys

import pytest

from featurecloud_network import Clients, Starter, install_engine


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """Folder with FeatureCloud's engine, which this process and others can import then."""
    folder = install_engine(tmp_path_factory.mktemp("engine"))
    sys.path.append(str(folder))
    return folder


@pytest.fixture(scope="session")
def starter(engine):
    starter = Starter(engine)
    yield starter
    starter.stop()


@pytest.fixture
def make_clients(starter, tmp_path):
    """Makes clients of these names, whose processes end with the test."""
    made = []

    def make(*names):
        made.append(Clients(starter, tmp_path / str(len(made)), names))
        return made[-1]

    yield make
    for clients in made:
        clients.__exit__()
