"""Stands in for the recorder."""
