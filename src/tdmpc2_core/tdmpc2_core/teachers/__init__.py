"""Scripted controllers that label or demonstrate."""
