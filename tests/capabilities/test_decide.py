"""Tests of capabilities._decide and _requests: what a policy says to a request, and why."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capabilities import (
    Decision,
    Environment,
    Filesystem,
    Grant,
    Network,
    Policy,
    Request,
    Syscalls,
)
from capabilities._requests import ACCESSES, FILE_CALLS, REQUEST_FORM
from tests.capabilities import strategies
from tests.capabilities.strategies import CATALOGUE
from tests.strategies import paths

POLICY = Policy(
    filesystem=Filesystem(
        read_only=(Grant("/usr", "/usr"), Grant("/srv/models", "/models")),
        read_write=(
            Grant("/usr/var", "/usr/var", read_write=True),
            Grant("/srv/out", "/out", read_write=True),
        ),
        inaccessible=("/srv/out/secret",),  # no file can say so, but data can
        exec=(Grant("/usr/bin/sort", "/usr/bin/sort"), Grant("/opt", "/opt")),
        devices=("null", "ptmx"),
    ),
    environment=Environment(inherit=["LANG"], set={"MODE": "batch"}),
    network=Network(connect=[443], listen=[8080], unix=(Grant("/run/x.sock", "/x.sock"),)),
)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("open /usr/share", "granted by filesystem.read_only[0]: '/usr/share' lies in '/usr'"),
        ("stat /usr", "granted by filesystem.read_only[0]: '/usr' lies in '/usr'"),
        (
            "openat /models/a/../b",
            (
                "granted by filesystem.read_only[1]: '/models/b' lies in '/models' "
                "('/srv/models' outside)"
            ),
        ),
        (
            "openat /srv/models/b",
            "refused by default: '/srv/models/b' lies in nothing that is granted",
        ),
        ("openat /", "refused by default: '/' lies in nothing that is granted"),
        ("openat /usrlocal", "refused by default: '/usrlocal' lies in nothing that is granted"),
        (
            "openat /usr/x write",
            "refused by filesystem.read_only[0]: '/usr/x' lies in '/usr', to read only",
        ),
        (
            "open /usr/var/x write",
            "granted by filesystem.read_write[0]: '/usr/var/x' lies in '/usr/var'",
        ),
        ("chmod /usr/var", "granted by filesystem.read_write[0]: '/usr/var' lies in '/usr/var'"),
        (
            "rmdir /usr/var",
            "refused by filesystem.read_only[0]: '/usr' lies in '/usr', to read only",
        ),
        ("mkdir /out", "refused by default: '/' lies in nothing that is granted"),
        (
            "mkdir /out/d",
            "granted by filesystem.read_write[1]: '/out' lies in '/out' ('/srv/out' outside)",
        ),
        (
            "rename /out/a /usr/var/b",
            "granted by filesystem.read_write[0]: '/usr/var' lies in '/usr/var'",
        ),
        (
            "rename /usr/a /out/b",
            "refused by filesystem.read_only[0]: '/usr' lies in '/usr', to read only",
        ),
        (
            "path_link /out/a /models/b",
            (
                "refused by filesystem.read_only[1]: '/models' lies in '/models' "
                "('/srv/models' outside), to read only"
            ),
        ),
        (
            "open /out/secret/x",
            "refused by filesystem.inaccessible[0]: '/srv/out/secret/x' lies in '/srv/out/secret'",
        ),
        (
            "execve /usr/bin/sort",
            "granted by filesystem.exec[0]: '/usr/bin/sort' lies in '/usr/bin/sort'",
        ),
        (
            "execve /usr/bin/cat",
            "refused by default: '/usr/bin/cat' lies in nothing that is granted to be executed",
        ),
        ("open /opt/x", "granted by filesystem.exec[1]: '/opt/x' lies in '/opt'"),
        ("path_open /opt/x", "refused by default: '/opt/x' lies in nothing that is granted"),
        ("path_open /dev/null", "refused by default: '/dev/null' lies in nothing that is granted"),
        (
            "chmod /dev/null",
            (
                "refused by filesystem.devices[0]: '/dev/null' lies in '/dev/null', which is "
                "itself not changed"
            ),
        ),
        (
            "open /dev/ptmx write",
            "granted by filesystem.devices[1]: '/dev/ptmx' lies in '/dev/ptmx'",
        ),
        (
            "open /dev/pts/0 write",
            (
                "granted by filesystem.devices[1]: '/dev/pts/0' lies in '/dev/pts' "
                "('/dev/ptmx' outside)"
            ),
        ),
        ("unlink /dev/ptmx", "refused by default: '/dev' lies in nothing that is granted"),
        ("stat /", "granted by filesystem.read_only[0]: '/' leads to '/usr'"),
        ("chdir /dev", "granted by filesystem.devices[0]: '/dev' leads to '/dev/null'"),
        ("stat /srv", "refused by default: '/srv' lies in nothing that is granted"),
        ("path_filestat_get /", "refused by default: '/' lies in nothing that is granted"),
        (
            "open /dev/null write",
            "granted by filesystem.devices[0]: '/dev/null' lies in '/dev/null'",
        ),
        ("open /dev/zero", "refused by default: '/dev/zero' lies in nothing that is granted"),
        ("connect tcp://*:443", "granted by network.connect: port 443 is in it"),
        ("connect tcp://10.0.0.1:443", "granted by network.connect: port 443 is in it"),
        ("connect tcp://*:8080", "refused by default: port 8080 is not in network.connect"),
        ("bind tcp://*:8080", "granted by network.listen: port 8080 is in it"),
        ("listen tcp://*:0", "refused by default: port 0 is not in network.listen"),
        (
            "connect unix:///x.sock",
            "granted by network.unix[0]: '/x.sock' is '/x.sock' ('/run/x.sock' outside)",
        ),
        (
            "connect unix:///run/x.sock",
            "refused by default: '/run/x.sock' is no socket of network.unix to connect to",
        ),
        (
            "bind unix:///x.sock",
            "refused by default: '/x.sock' is no socket of network.unix to connect to",
        ),
        ("getenv LANG", "granted by environment.inherit: 'LANG' is in it"),
        ("getenv MODE", "granted by environment.set.MODE: it is 'batch'"),
        ("getenv PATH", "refused by default: 'PATH' is neither inherited nor set"),
        ("fork", "granted by always: WASI programs are not held by calls"),
    ],
)
def test_decision(request_: str, answer: str) -> None:
    """Each request has one answer, with the rule that gives it and why."""
    decision = POLICY.decide(request_)

    assert str(decision) == answer
    assert bool(decision) == answer.startswith("granted")


@pytest.mark.parametrize("call", ["chmod", "utimensat", "fchown"])
def test_metadata_takes_a_view(call: str) -> None:
    """What no rule of the kernel's holds to the grants is refused where there can be no view."""
    catalogue = {call: "@file-system"}
    policy = attrs.evolve(POLICY, view="off", syscalls=Syscalls(allow=[call]))

    assert str(policy.decide(call, catalogue)) == (
        "refused by view: without a view nothing holds it to the files that are granted"
    )
    assert attrs.evolve(policy, view="auto").decide(call, catalogue)


@pytest.mark.parametrize(
    ("syscalls", "request_", "answer"),
    [
        (Syscalls(), "fork", "granted by filesystem.exec: it is what starting a program takes"),
        (
            Syscalls(),
            "getpid",
            "granted by always: it reaches nothing but the guest's own process and descriptors",
        ),
        (
            Syscalls(),
            "mmap",
            "granted by always: no program starts, has memory or ends without it",
        ),
        (
            Syscalls(),
            "chmod",
            "granted by filesystem: '@file-system' goes with files that are granted",
        ),
        (
            Syscalls(),
            "connect",
            "granted by network: '@network-io' goes with sockets that are granted",
        ),
        (
            Syscalls(),
            "socket",
            (
                "granted by network: '@network-io' goes with sockets that are granted: "
                "tcp, unix, unix-datagram, unix-seqpacket"
            ),
        ),
        (Syscalls(), "socket tcp", "granted by network.connect: it grants tcp"),
        (Syscalls(), "socket unix", "granted by network.unix: it grants unix"),
        (Syscalls(), "socket udp", "refused by default: [network] grants no socket of kind udp"),
        (Syscalls(), "socketpair unix", "granted by network: it grants unix"),
        (
            Syscalls(),
            "socketpair tcp",
            "refused by default: [network] grants no socketpair of kind tcp",
        ),
        (
            Syscalls(allow=["@basic-io"]),
            "socket tcp",
            "refused by syscalls.allow: neither 'socket' nor '@network-io' is in it",
        ),
        (
            Syscalls(deny=["fchmodat"]),
            "chmod /out",
            "refused by syscalls.deny: 'fchmodat' is denied",
        ),
        (
            Syscalls(allow=["@file-system"]),
            "openat /models/x",
            (
                "granted by filesystem.read_only[1]: '/models/x' lies in '/models' "
                "('/srv/models' outside)"
            ),
        ),
        (
            Syscalls(allow=["@file-system"]),
            "openat",
            "granted by syscalls.allow: '@file-system' is in it",
        ),
        (
            Syscalls(allow=["@file-system"]),
            "connect tcp://*:443",
            "refused by syscalls.allow: neither 'connect' nor '@network-io' is in it",
        ),
        (
            Syscalls(allow=["openat"], within=[["read"], ["@file-system"]]),
            "openat",
            "refused by syscalls.within[1]: neither 'openat' nor '@file-system' is in it",
        ),
        (Syscalls(), "ptrace", "refused by default: 'ptrace' is not served"),
        (
            Syscalls(deny=["openat"]),
            "path_open /models/x",
            (
                "granted by filesystem.read_only[1]: "
                "'/models/x' lies in '/models' ('/srv/models' outside)"
            ),
        ),
    ],
)
def test_calls_are_decided_on_first(syscalls: Syscalls, request_: str, answer: str) -> None:
    """With a catalogue the call must be granted as well; WASI's calls are no system calls."""
    policy = attrs.evolve(POLICY, syscalls=syscalls)

    assert str(policy.decide(request_, CATALOGUE)) == answer


def test_programs_need_their_name_or_a_tree() -> None:
    """Without programs to execute, starting one is refused, and so is starting a process."""
    policy = Policy(filesystem=Filesystem(read_only=(Grant("/", "/"),)))

    assert str(policy.decide("execve /bin/sh", CATALOGUE)) == (
        "refused by default: 'execve' has to be allowed by its name"
    )
    assert str(policy.decide("pipe2", CATALOGUE)) == (
        "refused by default: '@ipc' has to be allowed by its name"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"'' is no request: write {REQUEST_FORM}"),
        ("read 3", f"'read 3' is no request: write {REQUEST_FORM}"),
        ("getenv", f"'getenv' is no request: write {REQUEST_FORM}"),
        ("getenv A B", f"'getenv A B' is no request: write {REQUEST_FORM}"),
        ("open a", "'a' must be absolute: a request is not made from anywhere"),
        ("open /a /b /c", "'open /a /b /c': open names one path, without white space"),
        ("rename /a", "'rename /a': rename names two paths, without white space"),
        ("open /a wirte", "'wirte' is nothing that is done to a file: did you mean write?"),
        (
            "open /a /b",
            "'/b' is nothing that is done to a file: write look, read, write, make or execute",
        ),
        ("connect x", "'connect x': write connect tcp://*:PORT or connect unix:///PATH"),
        (
            "connect udp://*:53",
            "'connect udp://*:53': write connect tcp://*:PORT or connect unix:///PATH",
        ),
        ("bind 80", "'bind 80': write bind tcp://*:PORT or bind unix:///PATH"),
        (
            "connect tcp://*:65536",
            "'connect tcp://*:65536': write connect tcp://*:PORT or connect unix:///PATH",
        ),
    ],
)
def test_what_is_no_request(text: str, message: str) -> None:
    """A request that cannot be understood is refused, with what can."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole text is compared)
        POLICY.decide(text)

    assert str(caught.value) == message


@given(strategies.policies)
def test_decisions_on_calls_are_the_gate(policy: Policy) -> None:
    """A decision grants a call exactly if the gate does, and `[network]` where that is asked."""
    granted = policy.granted_calls(CATALOGUE)

    for call in CATALOGUE:
        decision = policy.decide(Request(call), CATALOGUE)
        withheld = decision.reason == f"[network] grants no {call}"
        assert bool(decision) == (call in granted and not withheld)
        assert not (withheld and policy.network.connect)


requests = st.one_of(
    st.builds(
        Request,
        st.sampled_from(sorted(FILE_CALLS)),
        paths.map(lambda path: (path,)),
        st.sampled_from(ACCESSES),
    ),
    st.builds(Request, st.sampled_from(["connect", "bind"]), port=strategies.ports.map(sum)),
    st.builds(Request, st.just("getenv"), variable=st.sampled_from(["PATH", "LANG", "HOME"])),
    st.builds(Request, st.just("connect"), socket=paths),
    st.builds(Request, st.sampled_from(sorted(CATALOGUE))),
)


@given(strategies.policies, strategies.policies, requests)
def test_what_two_policies_share_is_granted_by_both(
    one: Policy, other: Policy, request_: Request
) -> None:
    """No request is granted by an intersection that one of the two refuses."""
    if one.intersect(other).decide(request_, CATALOGUE):
        assert one.decide(request_, CATALOGUE)
        assert other.decide(request_, CATALOGUE)


@given(strategies.policies, requests)
def test_decisions_are_values(policy: Policy, request_: Request) -> None:
    """The same question has the same answer."""
    decision = policy.decide(request_, CATALOGUE)

    assert isinstance(decision, Decision)
    assert policy.decide(request_, CATALOGUE) == decision


CROSSED = Policy(
    filesystem=Filesystem(
        read_only=(Grant("/b", "/g/ro"), Grant("/bin/sub", "/bin/sub"), Grant("/c", "/bin/c")),
        read_write=(Grant("/a", "/g", read_write=True),),
        exec=(Grant("/bin", "/bin"), Grant("/a/x", "/g/x"), Grant("/d", "/g/d")),
        cwd="/g/ro",
    )
)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (
            "open /g/ro/f write",
            (
                "refused by filesystem.read_only[0]: '/g/ro/f' lies in '/g/ro' ('/b' outside), to "
                "read only"
            ),
        ),
        ("execve /bin/sub/f", "granted by filesystem.exec[0]: '/bin/sub/f' lies in '/bin'"),
        (
            "execve /bin/c/f",
            "refused by default: '/bin/c/f' lies in nothing that is granted to be executed",
        ),
        (
            "open /g/x/f write",
            "granted by filesystem.read_write[0]: '/g/x/f' lies in '/g' ('/a' outside)",
        ),
        (
            "open /g/d/f write",
            "refused by filesystem.exec[2]: '/g/d/f' lies in '/g/d' ('/d' outside), to read only",
        ),
        ("open /g/d/f", "granted by filesystem.exec[2]: '/g/d/f' lies in '/g/d' ('/d' outside)"),
        (
            "path_open /etc/passwd",
            (
                "granted by filesystem.read_only[0]: '/etc/passwd' is looked for in "
                "filesystem.cwd: '/g/ro/etc/passwd' lies in '/g/ro' ('/b' outside)"
            ),
        ),
        (
            "path_open /x write",
            (
                "refused by filesystem.read_only[0]: '/x' is looked for in filesystem.cwd: "
                "'/g/ro/x' lies in '/g/ro' ('/b' outside), to read only"
            ),
        ),
        ("open /etc/passwd", "refused by default: '/etc/passwd' lies in nothing that is granted"),
    ],
)
def test_trees_in_trees(request_: str, answer: str) -> None:
    """What lies in a tree of another one's is what is found there, and not what it covers."""
    assert str(CROSSED.decide(request_)) == answer
