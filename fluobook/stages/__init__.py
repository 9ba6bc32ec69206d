"""The stages of the bring-up: each observes, plans, applies and verifies; one module a stage, over `core`."""
