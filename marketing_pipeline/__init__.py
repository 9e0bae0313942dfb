"""Marketing automation as an event log: every effect once, every campaign replayable."""
