"""fluobook: runbooks that bring up and operate the FluoData platform."""
