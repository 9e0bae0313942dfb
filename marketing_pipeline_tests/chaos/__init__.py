"""Kills, cuts and freezes the real engine at every point, and compares the books afterwards."""
