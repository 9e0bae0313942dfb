"""How much memory there is to share out."""

import os
from collections.abc import Sequence
from pathlib import Path

# Of the container that we are in, by the second and the first version of Linux's control groups.
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def usable(limits: Sequence[Path] = LIMITS) -> int:
    """Bytes that the machine has, or that its container may use where these are fewer."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = [path.read_text().strip() for path in limits if path.is_file()]
    return min([machine, *(int(one) for one in said if one.isdigit())])  # "max": none is set
