"""The Kubernetes API, as the operator's ports want it."""
