"""What processes have used so far, as Linux counts it."""

import os
import re
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _PPID = 11, 1  # places in /proc/PID/stat after the name, which may hold spaces


def cpu(pid: int) -> float:
    """Seconds that a process has worked."""
    return sum(_stat(pid)[_UTIME : _UTIME + 2]) / _TICKS


def cpu_of_tree(pid: int) -> float:
    """Seconds that a process and its children have worked, those that have ended included."""
    children = (_stat(int(one.name)) for one in Path("/proc").iterdir() if one.name.isdigit())
    theirs = sum(sum(stat[_UTIME : _UTIME + 2]) for stat in children if stat[_PPID] == pid)
    return (sum(_stat(pid)[_UTIME : _UTIME + 4]) + theirs) / _TICKS


def peak_mib(pid: int | str = "self") -> float:
    """The most memory that a process ever held."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None, "Linux has it for every process that lives"
    return int(found[1]) / 1024


def _stat(pid: int) -> list[int]:
    """The numbers of a process; zeros where it has ended meanwhile."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return [0] * (_UTIME + 4)
    return [0, *map(int, text.rpartition(")")[2].split()[1:])]
