"""How labels are registered with scvi-tools when some cells have none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi.data.fields import CategoricalObsField, MuDataWrapper

if TYPE_CHECKING:
    from anndata import AnnData


class LabelsField(CategoricalObsField):
    """Labels of which some may be missing: such cells get the category of those without a label.

    scvi-tools takes no missing value, so that the column is completed in scvi-tools' own column of codes; the user's
    column stays as it is.
    """

    _original_attr_key: str

    def __init__(self, registry_key: str, attr_key: str | None, unlabeled_category: str | None = None) -> None:
        super().__init__(registry_key, attr_key)
        self._unlabeled_category = unlabeled_category

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Write the codes, and return what they stand for."""
        if self._unlabeled_category is not None and not self.is_default:
            column = adata.obs[self._original_attr_key]
            complete = column.astype(object).where(column.notna(), self._unlabeled_category).astype(str)
            adata.obs[self.attr_key] = complete.astype("category")
            self._original_attr_key = self.attr_key
        codes: dict[str, Any] = super().register_field(adata)
        return codes


MuDataLabelsField = MuDataWrapper(LabelsField)
