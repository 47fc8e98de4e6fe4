"""A robot on the graph: its sensors as samples, its targets as commands, and how a controller reads those."""
