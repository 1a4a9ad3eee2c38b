import pytest

from fedscgen._files import lock_folder


def test_a_folder_is_locked_until_the_block_ends_however_it_ends(tmp_path):
    with (
        lock_folder(tmp_path),
        pytest.raises(BlockingIOError, match=f"another run is writing to {tmp_path}: wait .* another folder"),
        lock_folder(tmp_path),
    ):
        pass
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path):
        1 / 0  # noqa: B018
    with lock_folder(tmp_path):
        pass
