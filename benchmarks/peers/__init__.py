"""Other people's queues at the same work; what they need stands in requirements.txt here."""
