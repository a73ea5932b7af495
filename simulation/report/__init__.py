"""What a run shows people: traces, stories, timelines, summaries."""
