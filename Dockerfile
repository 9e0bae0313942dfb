FROM python:3.12.12-slim-bookworm
RUN useradd --create-home --uid 10001 app
WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE dagster.yaml workspace.yaml ./
COPY marketing_pipeline ./marketing_pipeline
COPY campaigns ./campaigns
RUN pip install --no-cache-dir --no-deps . && mkdir .marketing && chown app .marketing
ENV DAGSTER_HOME=/app MARKETING_HOME=/app
USER app
CMD ["marketing-pipeline", "--help"]
