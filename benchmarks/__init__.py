"""What this project costs, measured on the machine at hand; each is `python -m benchmarks.NAME`."""
