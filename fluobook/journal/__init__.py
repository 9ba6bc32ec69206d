"""What a run leaves behind: its folder, the journal of its events, and the summary."""
