"""Importers: a file's text in, events out. Pure: no file, no clock, no network.

Each module reads one format and raises `fault.ImportFault`, which names the place, the field and the remedy.
"""
