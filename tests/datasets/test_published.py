import subprocess
import sys

import pytest

from fedscgen.datasets import DATASETS


def test_there_are_the_eight_published_data_sets():
    batches = {name: dataset.n_batches for name, dataset in DATASETS.items()}
    assert batches == {
        "HumanDendriticCells": 2,
        "MouseCellAtlas": 2,
        "HumanPancreas": 5,
        "PBMC": 2,
        "CellLine": 3,
        "MouseRetina": 2,
        "MouseBrain": 2,
        "MouseHematopoieticStemProgenitorCells": 2,
    }
    assert all(name == dataset.name for name, dataset in DATASETS.items())
    assert [name for name, dataset in DATASETS.items() if not dataset.secure] == ["MouseBrain"]


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_without_minor_types_take_part_in_no_other_scenario(name):
    dataset = DATASETS[name]
    assert bool(dataset.minor_types) == (name not in ("HumanDendriticCells", "CellLine"))
    assert dataset.inclusions == (("all", "dropped", "combined") if dataset.minor_types else ("all",))
    assert len(set(dataset.minor_types)) == len(dataset.minor_types)


def test_the_table_can_not_be_changed():
    with pytest.raises(TypeError):
        DATASETS["PBMC"] = DATASETS["CellLine"]
    with pytest.raises(AttributeError):
        DATASETS["PBMC"].n_batches = 3


def test_importing_data_sets_loads_nothing_heavy():
    heavy = ["scanpy", "pooch", "requests", "scib_metrics", "jax"]
    code = f"import sys, fedscgen.datasets; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603
    assert done.stdout.split() == []
