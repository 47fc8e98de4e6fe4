"""Environments to learn from, behind one registry."""
