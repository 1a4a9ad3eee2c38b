"""All that stands between crypten 0.4.1, of 2022 and unmaintained since, and a current torch.

Three things are replaced. The sums and comparisons here need none of them:

- *crypten's published dependencies.* They ask for ``sklearn``, a stub that refuses to be built, and for
  ``torchvision``, whose wheels replace the installed torch or, beside a CPU build of it, break every later
  ``import lightning``. pip can't leave out a dependency, so the extra ``crypten`` lists what is really
  imported of them, and not crypten. Its wheel is fetched at first use through the machine's own pip, accepted only
  with the digest pinned here, kept in the user's cache, and unpacked for the parties, never installed. An installed
  crypten (``pip install --no-deps crypten==0.4.1``) takes precedence, and is what a machine without network needs.
- ``crypten.nn.onnx_converter``, which reads models through internals of ``torch.onnx`` that torch 2.9 removed.
  ``import crypten`` fails there, so an empty module takes its place.
- ``crypten.mpc.get_default_provider``: by default the first party draws the triples for multiplications in the clear,
  and could with them read whatever is multiplied. The parties here are dealt theirs by a process of its own.

The last two act in a compute party's process alone. What remains of crypten's limits: its transport, gloo, knows no
TLS, so the parties meet on the loopback interface of one machine only; they have to follow the protocol; one that ends
stops the others.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from fedscgen._extras import missing_extra
from fedscgen._files import write_whole

logger = logging.getLogger(__name__)

_REQUIREMENT = "crypten==0.4.1"
_WHEEL = "crypten-0.4.1-py3-none-any.whl"
_SHA256 = "26e7f4b54997b3a78d10c8c0bcb604215eef6ad7830ddbfe93a14d80c9c1dd84"
_SECONDS_TO_FETCH = 60.0
_NEEDED = {"omegaconf": "omegaconf", "platformdirs": "platformdirs", "torch": "torch", "yaml": "PyYAML"}
_CONVERTER = "crypten.nn.onnx_converter"


def provide_crypten(directory: Path) -> Path | None:
    """Unpack crypten into ``directory`` unless it is installed, and return where; neither imports nor installs it.

    Raises
    ------
    ModuleNotFoundError
        Something is missing, and crypten itself can't be fetched; the message names the pip command.
    """
    missing = [project for module, project in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise missing_extra("the crypten aggregator needs", ", ".join(missing), "crypten")
    if find_spec("crypten") is not None:
        return None
    with zipfile.ZipFile(io.BytesIO(_find_wheel())) as wheel:
        # beside the package and its settings lie tests and examples, whose names others use as well
        wheel.extractall(directory, [name for name in wheel.namelist() if name.startswith(("crypten/", "configs/"))])
    return directory


def load_crypten(directory: Path | None) -> ModuleType:
    """Import crypten, from ``directory`` where it was unpacked."""
    if directory is not None:
        sys.path.append(str(directory))
    converter = ModuleType(_CONVERTER)
    vars(converter).update(from_onnx=None, from_pytorch=None, from_tensorflow=None, TF_AND_TF2ONNX=False)
    sys.modules.setdefault(_CONVERTER, converter)
    return importlib.import_module("crypten")


def use_randomness(provider: object) -> None:
    """Have crypten take what it multiplies with from ``provider``, and from nothing else."""
    importlib.import_module("crypten.mpc").get_default_provider = lambda: provider  # type: ignore[attr-defined]


def _find_wheel() -> bytes:
    """The wheel of crypten, from the user's cache or else from the package index."""
    cached = _cache() / _WHEEL
    content = cached.read_bytes() if cached.exists() else b""
    if not _is_published(content):
        logger.info("fetching %s with pip, to keep it as %s", _REQUIREMENT, cached)
        content = _download()
        _keep(content, cached)
    return content


def _cache() -> Path:
    from platformdirs import user_cache_path  # of the extra

    return user_cache_path("fedscgen", appauthor=False)


def _is_published(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == _SHA256


def _download() -> bytes:
    """Have pip download the wheel, and check its digest twice: pip does, and so does this."""
    with tempfile.TemporaryDirectory(prefix="fedscgen-") as directory:
        requirements = Path(directory, "requirements.txt")
        requirements.write_text(f"{_REQUIREMENT} --hash=sha256:{_SHA256}\n")
        # -P: a module in the current directory must not take the place of pip
        command = [sys.executable, "-P", "-W", "ignore", "-m", "pip", "download"]
        command += ["--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += [f"--requirement={requirements}", f"--dest={directory}"]
        _run(command)
        wheel = Path(directory, _WHEEL)
        content = wheel.read_bytes() if wheel.exists() else b""
    if not _is_published(content):
        raise _fetch_error("pip gave another file than the published one")
    return content


def _run(command: list[str]) -> None:
    try:
        subprocess.run(  # noqa: S603  (our own command, no shell)
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS_TO_FETCH, check=True
        )
    except subprocess.TimeoutExpired:
        raise _fetch_error(f"pip did not end within {_SECONDS_TO_FETCH:g} seconds") from None
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")]
        raise _fetch_error([*errors, *lines[-1:], f"exit status {error.returncode}"][0][:200]) from None


def _fetch_error(reason: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"the crypten aggregator needs crypten, which pip could not fetch ({reason}): "
        f"pip install --no-deps {_REQUIREMENT}",
        name="crypten",
    )


def _keep(content: bytes, place: Path) -> None:
    """Write the wheel; runs that start together find the whole file or none. Without it they fetch their own."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, content)
    except OSError as error:
        logger.warning("%s can't be kept and will be fetched again: %s", place, error)
