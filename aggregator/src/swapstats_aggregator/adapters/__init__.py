"""Adapters: one module for each server. Imported only where a process is composed."""
