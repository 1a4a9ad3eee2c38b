"""Is a method better than centralized scGen, or no worse, over the seeds?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.benchmark._tables import BASELINE, TABLES, TEST_KEYS

if TYPE_CHECKING:
    import pandas as pd


def compare(results: pd.DataFrame, *, baseline: str = BASELINE) -> pd.DataFrame:
    """Wilcoxon's signed-rank test of each method against one, paired over seeds.

    Parameters
    ----------
    results
        Tidy results, as a benchmark writes them; runs of kind ``"integration"`` take part.
    baseline
        Method to compare with.

    Returns
    -------
    One row per experiment, data set, scenario, metric and method: ``baseline``, ``n_seeds`` that both have,
    ``median_difference`` (method minus baseline) and the two-sided ``p_value``: exact where no difference is zero or
    tied (:func:`scipy.stats.wilcoxon`), NaN where fewer than two seeds differ.
    """
    import pandas as pd

    rows = []
    for names, group in results[results["kind"] == "integration"].groupby(list(TEST_KEYS), sort=False):
        values = group.pivot_table(index="seed", columns="method", values="value", sort=False)
        if baseline not in values:
            continue
        for method in values.columns.drop(baseline):
            differences = (values[method] - values[baseline]).dropna().to_numpy()
            rows.append(
                {
                    **dict(zip(TEST_KEYS, names, strict=True)),
                    "method": method,
                    "baseline": baseline,
                    "n_seeds": len(differences),
                    "median_difference": float(np.median(differences)) if len(differences) else np.nan,
                    "p_value": _p_value(differences),
                }
            )
    return pd.DataFrame(rows, columns=list(TABLES["comparisons"]))


def _p_value(differences: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    if np.count_nonzero(differences) < 2:
        return float("nan")
    return float(wilcoxon(differences).pvalue)
