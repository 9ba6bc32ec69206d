"""Headless runs: papermill with an engine that tells the truth about cells, signals, redaction and the report."""
