"""Hypothesis strategies for policies with all their parts."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st

from capabilities import Audit, Clock, Network, Policy, Random, Syscalls
from capabilities._model import LOGS, MODES, ON_DENY, VIEWS
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
    "socket": "@network-io",
    "socketpair": "@network-io",
    "pipe2": "@ipc",
}

entries = st.sampled_from(sorted({*CATALOGUE, *CATALOGUE.values()}))
entry_lists = st.lists(entries, max_size=6)
ports = st.lists(st.sampled_from([1, 80, 443, 65535]), max_size=3)
sockets = st.lists(strategies.grants.filter(lambda grant: not grant.read_write), max_size=2)
networks = st.builds(Network, ports, ports, sockets.map(lambda them: tuple(sorted(set(them)))))
clocks = st.sampled_from(
    [Clock(), Clock("virtual"), Clock("fixed", 0), Clock("fixed", 1_700_000_000_123_456_000)]
)
randoms = st.builds(Random, st.none() | st.sampled_from([0, 42, 2**64 - 1]))
# The path of a loaded policy's lies outside of what the guest may change.
audits = st.builds(
    lambda log, path: Audit(log, path) if log == "none" or path else Audit("none"),
    st.sampled_from(LOGS),
    st.none() | st.sampled_from(["/log/a", "/log/b"]),
)
# Made as intersections are, so that the lists are in order.
syscalls = st.builds(
    lambda one, other: one.intersect(other),
    *2
    * (
        st.builds(
            Syscalls,
            allow=st.none() | entry_lists,
            deny=st.lists(entries, max_size=2),
            on_deny=st.sampled_from(ON_DENY),
        ),
    ),
)


def _held(policy: Policy) -> Policy:
    """Do without what nobody would hold a guest to."""
    if "off" not in (policy.lockdown, policy.view):
        return policy
    return attrs.evolve(policy, network=attrs.evolve(policy.network, unix=()))


policies = st.builds(
    attrs.evolve,
    strategies.policies,
    network=networks,
    syscalls=st.just(Syscalls()) | syscalls,
    lockdown=st.sampled_from(MODES),
    view=st.sampled_from(VIEWS),
    clock=clocks,
    random=randoms,
    audit=audits,
    source=st.sampled_from(["policy", "a.toml"]),
).map(_held)
