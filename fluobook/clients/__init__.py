"""The only modules that talk to the outside: foreign errors stop here."""

from __future__ import annotations

from stamina.instrumentation import set_on_retry_hooks

# stamina would print a line for each retry into whatever cell is running.
set_on_retry_hooks(())
