"""What the machine and a running robot lack, and what to do about it."""
