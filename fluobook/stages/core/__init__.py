"""What all stages share: actions, plans and their digests, the gate, the executor, checks and the context."""
