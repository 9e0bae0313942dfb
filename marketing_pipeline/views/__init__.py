"""Views of the log: pure, frame -> frame, so that the same rows give the same bytes anywhere."""
