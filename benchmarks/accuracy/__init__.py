"""The accuracy protocol: maps that no training saw, every method on them, tables and figures."""
