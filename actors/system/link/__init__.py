"""The link between nodes: authenticated, bounded, in two lanes."""
