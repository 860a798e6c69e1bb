"""Stands before the real package on PYTHONPATH: its ``__main__`` is another one, all else is the real package's.

Data files are looked for beside this file, hence the link.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
