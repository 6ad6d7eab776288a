"""Synthetic data: 1D patterns for training, detector frames for tests and demonstrations."""
