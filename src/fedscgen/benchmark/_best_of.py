"""The best of a competitor's settings, found with the very labels that it is scored with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen.benchmark._meanings import is_lower_better
from fedscgen.benchmark._methods import find_method
from fedscgen.benchmark._tables import SUMMARY_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def add_best_of(results: pd.DataFrame, likes: Mapping[str, str]) -> pd.DataFrame:
    """Add what each competitor reaches with the best of several settings.

    Only centralized methods that stand in an experiment with more than one setting are competitors here. For each data
    set, condition and metric, the setting with the best mean over seeds is taken: a choice that nobody can make without
    the labels that count, and so one in the competitor's favour.

    Parameters
    ----------
    results
        Tidy results, as a benchmark writes them.
    likes
        The registered method behind each name of a method.

    Returns
    -------
    The same rows, and behind them those of methods named such as ``"harmony, best of 4"``.
    """
    import pandas as pd

    parts, behind = [results], results["method"].map(likes)
    for (_, like), part in results.groupby(["experiment", behind], sort=False):
        n_settings = part["method"].nunique()
        if n_settings > 1 and _is_centralized(str(like)):
            parts.append(_take_best(part).assign(method=f"{like}, best of {n_settings}"))
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else results


def _take_best(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of the best method, separately for each data set, condition and metric."""
    keys = [key for key in SUMMARY_KEYS if key != "method"]
    means = results.dropna(subset="value").groupby([*keys, "method"], sort=False)["value"].mean().reset_index()
    means["value"] = means["value"].where(~means["metric"].map(is_lower_better), -means["value"])
    best = means.loc[means.groupby(keys, sort=False)["value"].idxmax(), [*keys, "method"]]
    return results.merge(best, on=[*keys, "method"])


def _is_centralized(like: str) -> bool:
    try:
        return find_method(like).centralized
    except ValueError:  # a method of a package that isn't installed here
        return False
