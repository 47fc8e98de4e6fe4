"""Rolling the world model out: readable, compiled, and with the gradient for the actions."""
