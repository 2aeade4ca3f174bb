"""The command line, and the files that people write: YAML catalogues, JSON Lines events."""
