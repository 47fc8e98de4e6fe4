"""The recorder node and the bags it writes."""
