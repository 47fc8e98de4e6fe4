"""Checkpoints: the bundle directory of this suite, and files of the official TD-MPC2 code."""
