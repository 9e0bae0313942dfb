"""What can be typed, by what it is about."""
