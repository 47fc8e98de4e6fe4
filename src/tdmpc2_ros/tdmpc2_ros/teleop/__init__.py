"""Driving a robot by the keys of a terminal, or by a gamepad."""
