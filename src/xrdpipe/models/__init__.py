"""Trained models that ship with xrdpipe: one folder per model."""
