"""Episode stores to and from the layouts of other programs; needs the extra `exchange`."""
