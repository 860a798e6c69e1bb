"""Stands in for the API in the supervisor's tests: found first on PYTHONPATH."""
