"""Processes for WALI programs, from the outside: started, awaited, ended.

# _process.py     one of them; _order.py what its launcher is told
# _supervisor.py  ends whatever a program leaves behind
"""
