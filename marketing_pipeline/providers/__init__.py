"""The only outward room: what is asked of a provider, how, and what its answer means."""
