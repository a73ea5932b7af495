"""Settings: from flags, environment variables and TOML to validated values."""
