"""The command: each verb parses, calls and prints. Everything heavy is imported inside a verb."""

from matmulbench.cli import verbs as verbs  # defines them
from matmulbench.cli.command import app, main

__all__ = ["app", "main"]
