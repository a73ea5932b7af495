"""Messages between the actors, and which of them may cross from node to node."""
