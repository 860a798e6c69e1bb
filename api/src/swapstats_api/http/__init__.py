"""REST: parameters in, bytes out; every error a problem."""
