"""What a node can be called: the one limit that settings, messages and handshakes keep to."""

NAME_LENGTH = 64
"""Most characters of a node's id, and of an incarnation; ids are ASCII, so that these are bytes as well."""
