"""scib-metrics and what comes with it are an extra."""

import warnings

from fedscgen._extras import missing_extra


def require_scib_metrics() -> None:
    """Say how to install scib-metrics where it is missing.

    Raises
    ------
    ModuleNotFoundError
        scib-metrics, or one of the packages that it brings, is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # UMAP's, that it can do without TensorFlow
            import igraph  # noqa: F401
            import scib_metrics  # noqa: F401
    except ModuleNotFoundError as missing:
        raise missing_extra("kBET, LISI and the isolated-label F1 need", str(missing.name), "benchmark") from missing
