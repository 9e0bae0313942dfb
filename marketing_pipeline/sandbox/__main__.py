"""`python -m marketing_pipeline.sandbox`: the sandbox on a port of its own."""

import argparse
import asyncio
import ipaddress
import json
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path

from marketing_pipeline.sandbox import wishes
from marketing_pipeline.sandbox.limits import Limit
from marketing_pipeline.sandbox.serve import LOOPBACK, serve


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m marketing_pipeline.sandbox", description=__doc__
    )
    parser.add_argument("--host", default=LOOPBACK, help="only loopback unless given")
    parser.add_argument("--port", type=int, default=8026, help="0 takes a free one")
    parser.add_argument("--record", type=Path, required=True, help="SQLite file, made if missing")
    parser.add_argument("--limits", type=Path, help='JSON: {"resend": {"limit": 10, "seconds": 1}}')
    arguments = parser.parse_args()
    try:
        limits = _limits(arguments.limits) if arguments.limits else None
        if not _is_loopback(arguments.host):
            print(f"sandbox: {arguments.host} opens it to the network, to anyone", file=sys.stderr)
        _run(serve(arguments.host, arguments.port, arguments.record, ready=_say, limits=limits))
    except wishes.BadWish as bad:
        parser.error(f"--limits {arguments.limits}: {bad}")
    except OSError as bad:
        parser.error(f"{bad}: choose another --host, --port or file")
    return 0


def _run(serving: Coroutine[None, None, None]) -> None:
    try:
        import uvloop
    except ImportError:  # it is not built for Windows
        asyncio.run(serving)
    else:
        uvloop.run(serving)


def _say(url: str) -> None:
    print(f"sandbox {url}", flush=True)


def _limits(path: Path) -> Mapping[str, Limit]:
    try:
        return wishes.limits(json.loads(path.read_bytes()))
    except ValueError as bad:
        if isinstance(bad, wishes.BadWish):
            raise
        raise wishes.BadWish("body", f"is not JSON ({bad})", "write a JSON object") from bad


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    sys.exit(main())
