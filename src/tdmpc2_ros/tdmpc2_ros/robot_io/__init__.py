"""A robot on the graph: its sensors as samples, targets as commands, and commands as a controller reads them."""
