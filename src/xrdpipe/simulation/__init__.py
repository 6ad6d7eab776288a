"""Detector frames of a synthetic map, made of explicit grains: for tests, demo and benchmarks."""
