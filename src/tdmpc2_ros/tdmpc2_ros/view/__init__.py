"""A page that shows a running robot, its plan and its command."""
