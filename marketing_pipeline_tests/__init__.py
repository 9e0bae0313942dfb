"""The tests, split by what must be running: unit (nothing), integration, acceptance."""
