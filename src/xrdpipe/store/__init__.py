"""Processed files: resumable work in progress, patterns and maps (the layout is in schema.py)."""
