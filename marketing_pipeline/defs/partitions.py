"""Days: the one dimension in which the log is partitioned."""

from dagster import DailyPartitionsDefinition

# UTC days; end_offset=1 makes today a partition, which is where work happens.
DAYS = DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC", end_offset=1)
