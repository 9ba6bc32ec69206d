"""The simulated environment: every server that the stages use, on loopback."""
