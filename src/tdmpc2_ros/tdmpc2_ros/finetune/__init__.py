"""The node that serves the fine-tuning action."""
