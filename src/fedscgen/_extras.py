"""What is said of a package that isn't there.

No command here names this package on an index: what stands there under its name is other people's code.
"""

from __future__ import annotations


def missing_extra(what: str, package: str, extra: str) -> ModuleNotFoundError:
    """The error of what needs a package that an extra installs.

    Parameters
    ----------
    what
        Who needs it, such as ``"masked aggregation needs"``.
    package
        The package that is missing.
    extra
        The extra that has it.
    """
    remedy = f"""add the extra "{extra}" in a clone of the repository: pip install ".[{extra}]\""""
    return ModuleNotFoundError(f"{what} {package}: {remedy}", name=package)
