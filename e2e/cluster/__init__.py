"""A real cluster without Docker: its servers are built from Kubernetes' own modules."""
