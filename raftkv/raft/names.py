"""The limit on the length of node ids, shared by settings, messages and handshakes."""

NAME_LENGTH = 64
"""Most characters of a node's id, and of an incarnation; ids are ASCII, so that these are bytes as well."""
