"""The operator's file and templates: what is read, checked, kept by its hash and rendered."""
