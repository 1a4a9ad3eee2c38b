from importlib.metadata import EntryPoint

import pytest

from fedscgen import _registry
from fedscgen._registry import PLUGINS, Registry


@pytest.fixture
def metals():
    registry = Registry("metal")
    registry.register("iron", 26)
    return registry


def test_a_value_is_found_by_its_name(metals):
    assert metals.find("iron") == 26
    assert metals.names() == ["iron"]


def test_an_unknown_name_is_refused_with_the_choices(metals):
    metals.register("zinc", 30)
    with pytest.raises(ValueError, match="unknown metal 'wood': choose one of 'iron', 'zinc'"):
        metals.find("wood")


def test_a_name_that_is_taken_is_refused_unless_it_shall_be_replaced(metals):
    with pytest.raises(ValueError, match="there is metal 'iron' already"):
        metals.register("iron", 0)
    metals.register("iron", 56, overwrite=True)
    assert metals.find("iron") == 56


def test_an_empty_name_is_refused(metals):
    with pytest.raises(ValueError, match="give the metal a name"):
        metals.register("", 1)


def test_an_installed_package_brings_its_own_by_an_entry_point(metals, tmp_path, monkeypatch):
    (tmp_path / "plugin_of_gold.py").write_text("import shop\nshop.metals.register('gold', 79)\n")
    (tmp_path / "shop.py").write_text("metals = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    import shop

    shop.metals = metals
    found = [EntryPoint("gold", "plugin_of_gold", PLUGINS)]
    monkeypatch.setattr(_registry, "entry_points", lambda group: found if group == PLUGINS else [])
    _registry.load_plugins.cache_clear()
    assert metals.find("gold") == 79


def test_a_plug_in_that_fails_is_named_and_keeps_nothing_else_from_work(metals, tmp_path, monkeypatch, caplog):
    (tmp_path / "plugin_of_lead.py").write_text("import no_such_package\n")
    (tmp_path / "plugin_of_tin.py").write_text("import forge\nforge.metals.register('tin', 50)\n")
    (tmp_path / "forge.py").write_text("metals = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    import forge

    forge.metals = metals
    found = [EntryPoint("lead", "plugin_of_lead", PLUGINS), EntryPoint("tin", "plugin_of_tin", PLUGINS)]
    monkeypatch.setattr(_registry, "entry_points", lambda group: found)
    _registry.load_plugins.cache_clear()
    assert metals.names() == ["iron", "tin"]
    assert "the plug-in 'lead' (plugin_of_lead) can't be loaded: No module named 'no_such_package'" in caplog.text
