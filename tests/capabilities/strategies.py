"""Hypothesis strategies for policies with all their parts."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st

from capabilities import Network, Syscalls
from capabilities._model import ERRNOS, MODES
from tests import strategies

# A small world of calls: some that are essential, that have variants, that only a name grants.
CATALOGUE = {
    "mmap": "@default",
    "exit_group": "@process",
    "getpid": "@process",
    "execve": "@default",
    "fork": "@process",
    "read": "@basic-io",
    "readv": "@basic-io",
    "epoll_wait": "@io-event",
    "nanosleep": "@timer",
    "rt_sigaction": "@signal",
    "fstat": "@file-system",
    "openat": "@file-system",
    "open": "@file-system",
    "chmod": "@file-system",
    "fchmodat": "@file-system",
    "fchown": "@chown",
    "fsync": "@sync",
    "connect": "@network-io",
    "pipe2": "@ipc",
}

entries = st.sampled_from(sorted({*CATALOGUE, *CATALOGUE.values()}))
entry_lists = st.lists(entries, max_size=6)
ports = st.lists(st.sampled_from([1, 80, 443, 65535]), max_size=3)
networks = st.builds(Network, ports, ports)
# Made as intersections are, so that the lists are in order.
syscalls = st.builds(
    lambda one, other: one.intersect(other),
    *2
    * (
        st.builds(
            Syscalls,
            allow=st.none() | entry_lists,
            deny=st.lists(entries, max_size=2),
            on_deny=st.sampled_from(ERRNOS),
        ),
    ),
)
policies = st.builds(
    attrs.evolve,
    strategies.policies,
    network=networks,
    syscalls=st.just(Syscalls()) | syscalls,
    lockdown=st.sampled_from(MODES),
    source=st.sampled_from(["policy", "a.toml"]),
)
