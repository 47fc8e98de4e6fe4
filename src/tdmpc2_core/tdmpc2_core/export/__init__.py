"""Deployment: the planner as ahead-of-time compiled code, the policy prior as ONNX (torch)."""
