"""Plays the chart repositories: small stand-in charts, served in the versions that the platform tree pins."""
