"""Guests that are tasks of trio, and what they wait for.

# _cooperative.py  one guest
# _reactor.py      waits for it: _watches.py where that takes more than trio has, _turns.py when
#                  many compute
# _tasks.py        whole programs; _flow.py their streams
"""
