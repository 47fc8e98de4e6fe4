"""Recorded experience on disk. Numpy only."""
