"""What Dagster schedules and shows: the only room that imports it."""
