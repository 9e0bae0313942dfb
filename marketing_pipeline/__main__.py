"""`python -m marketing_pipeline` is the command line."""

from marketing_pipeline.cli import main

main()
