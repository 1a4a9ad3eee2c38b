import logging
import warnings

from fedscgen.cli._warnings import keep_warnings


def test_warnings_of_both_kinds_are_kept_once_and_shown(caplog):
    with warnings.catch_warnings(record=True) as shown, keep_warnings() as kept:
        warnings.simplefilter("always")
        warnings.warn("seen", UserWarning, stacklevel=1)
        warnings.warn("seen", UserWarning, stacklevel=1)
        warnings.warn("for developers", DeprecationWarning, stacklevel=1)
        logging.getLogger("fedscgen.federation").warning("%d of %d sites", 2, 3)
        logging.getLogger("fedscgen").info("no warning")
        logging.getLogger("other").warning("of another package")
    assert kept == ["seen", "2 of 3 sites"]
    assert [str(one.message) for one in shown] == ["seen", "seen", "for developers"]
    assert "2 of 3 sites" in caplog.text


def test_nothing_is_kept_afterwards():
    before = warnings.showwarning
    with keep_warnings() as kept:
        pass
    logging.getLogger("fedscgen").warning("late")
    assert kept == []
    assert warnings.showwarning is before
