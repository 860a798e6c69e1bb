"""The Kubernetes API, the Lease, and an instance's servers, as the operator's ports want them."""
