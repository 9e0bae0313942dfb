FROM python:3.12.12-slim-bookworm
RUN useradd --create-home --uid 10001 app
WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
# Installed, and not left lying beside the installed package as a second copy of it.
COPY pyproject.toml README.md LICENSE /tmp/source/
COPY marketing_pipeline /tmp/source/marketing_pipeline
RUN pip install --no-cache-dir --no-deps /tmp/source && rm -r /tmp/source
COPY dagster.yaml workspace.yaml ./
COPY campaigns ./campaigns
# The state is the only place that is written: a volume mounted here gets this owner. Dagster would
# keep a telemetry queue in its home, and does without where it may not.
RUN mkdir /var/lib/marketing && chown app:app /var/lib/marketing
ENV DAGSTER_HOME=/app MARKETING_HOME=/app MARKETING_STATE=/var/lib/marketing \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER app
CMD ["marketing-pipeline", "--help"]
