"""What people see of runs: summaries, a progress bar, and the timeline of a run as an HTML page."""
