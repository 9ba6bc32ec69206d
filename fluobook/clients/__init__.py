"""The clients of external systems; no foreign exception leaves this package."""
