"""Training loops, evaluation, and the run folder that they write."""
