"""What tests share: actors driven by hand, and small clusters in one thread."""
