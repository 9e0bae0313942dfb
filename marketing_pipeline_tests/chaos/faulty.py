"""Faults of an engine, put into the child process of a control: each must be caught by the judge."""

from collections.abc import Callable, Mapping

FAULTS: Mapping[str, Callable[[], None]] = {}
