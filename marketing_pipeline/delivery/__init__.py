"""How an event becomes effects and each effect is done once: plan, gate, claim, call, settle."""
