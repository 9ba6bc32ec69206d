"""Talos documents as pure functions of plain arguments."""
