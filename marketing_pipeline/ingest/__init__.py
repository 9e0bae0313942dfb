"""Takes events over HTTP into the log."""
