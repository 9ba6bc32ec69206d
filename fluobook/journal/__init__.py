"""What a run leaves behind: its folder, the journal of what happened, and the summary."""
