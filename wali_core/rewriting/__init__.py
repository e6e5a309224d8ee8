"""Passes over a module's code before it is compiled.

# _prepare.py  reading and writing code; names, start functions and layouts that the core needs
# _reuse.py    fewer loads: what has been read stays in locals
# _polls.py    a program looks for signals in each cycle of its code
# _atomics.py  it waits by the host's futexes
# _growth.py   a guest that asks for more memory than it may have is ended
"""
