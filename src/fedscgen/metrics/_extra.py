"""scib-metrics and what comes with it are an extra."""

import warnings


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
        raise ModuleNotFoundError(
            f"kBET, LISI and the isolated-label F1 need {missing.name}: pip install 'fedscgen[benchmark]'",
            name=missing.name,
        ) from missing
