import pytest

from cells import make_adata
from fedscgen._files import lock_folder, read_cells


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


def test_cells_are_read_whole_or_left_on_disk(tmp_path):
    adata = make_adata()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert (read_cells(tmp_path / "cells.h5ad").X != adata.X).nnz == 0
    on_disk = read_cells(tmp_path / "cells.h5ad", on_disk=True)
    assert on_disk.isbacked
    on_disk.file.close()


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_no_h5ad_is_named_in_one_line(tmp_path, on_disk):
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad does not exist"):
        read_cells(tmp_path / "none.h5ad", on_disk=on_disk)
    (tmp_path / "text.h5ad").write_text("cell,gene")
    with pytest.raises(ValueError, match=r"text\.h5ad can't be read as \.h5ad: ") as error:
        read_cells(tmp_path / "text.h5ad", on_disk=on_disk)
    assert "\n" not in str(error.value)
