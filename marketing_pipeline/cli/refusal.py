"""What is told where nothing is done: one line, and the exit code of a usage error."""

import sys
from typing import NoReturn


def refuse(message: str) -> NoReturn:
    """Raises SystemExit with 2."""
    print(f"marketing-pipeline: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)
