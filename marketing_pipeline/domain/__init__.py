"""The pure core: events, effects, plans, outcomes and what follows from them."""
