"""Hypothesis strategies for the project's values; each new kind of value adds its own here."""

from __future__ import annotations

from hypothesis import strategies as st

from capabilities import Environment, Filesystem, Grant, Limits, Policy

# Few short names: trees that nest and paths that collide are what goes wrong.
_PARTS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3)

paths = _PARTS.map(lambda parts: "/" + "/".join(parts))
grants = st.builds(Grant, paths, paths, st.booleans())
_readable = st.builds(Grant, paths, paths)
filesystems = st.builds(
    Filesystem.of,
    st.lists(grants, max_size=4),
    inaccessible=st.lists(st.sampled_from(["/c", "/c/d", "/e"]), max_size=2),
    exec=st.lists(_readable, max_size=2),
    devices=st.lists(st.sampled_from(["null", "tty"]), max_size=2),
    cwd=st.none() | paths,
)

_names = st.sampled_from(["PATH", "LANG", "TZ"])
environments = st.builds(
    Environment,
    inherit=st.lists(_names, max_size=3),
    set=st.dictionaries(_names, st.sampled_from(["", "x", 'é"\\\n\x7f']), max_size=3),
)

durations = st.one_of(
    st.integers(1, 10_000_000).map(lambda ms: ms / 1000),
    st.floats(0.001, 366 * 86400, allow_nan=False),
)
sizes = st.one_of(
    st.builds(lambda n, shift: n << shift, st.integers(1, 16), st.sampled_from([0, 10, 20, 30])),
    st.integers(1, 16 << 40),
)
limits = st.builds(
    Limits,
    wall_time=st.none() | durations,
    cpu_time=st.none() | durations,
    memory=st.none() | sizes.filter(lambda size: size >= 64 << 10),
    open_files=st.none() | st.integers(3, 4096),
    output=st.none() | sizes,
    processes=st.none() | st.integers(1, 32768),
    threads=st.none() | st.integers(1, 1024),
)
policies = st.builds(
    Policy,
    name=st.sampled_from(["", "one", "two"]),
    filesystem=filesystems,
    environment=environments,
    limits=limits,
)
