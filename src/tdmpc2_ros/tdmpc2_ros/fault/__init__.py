"""Faults on purpose: the service that takes them, a relay that passes messages through them, a command."""
