"""The only room that speaks SQL: the log of facts, the plans and the ledger of effects."""
