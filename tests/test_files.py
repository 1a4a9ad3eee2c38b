from pathlib import Path

import pytest

from fedscgen._files import create_whole, lock_folder


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


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_an_output_stays_when_what_was_to_replace_it_was_never_made(tmp_path, make):
    output = tmp_path / "output"
    make(output)
    with (
        pytest.raises(FileNotFoundError, match=f"nothing was made to become {output}"),
        create_whole(output, overwrite=True, remedy=""),
    ):
        pass
    assert list(tmp_path.iterdir()) == [output]
