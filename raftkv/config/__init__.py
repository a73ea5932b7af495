"""Configuration: one table of settings, read from flags, environment variables and a TOML file.

Click finds the values; ``values`` parses them, ``option`` names the place of a wrong one, and ``settings`` has the
table and checks settings against each other. A node starts only with settings that passed every check; each failure is
one line that says which setting is wrong, where it was given and what would be right.
"""
