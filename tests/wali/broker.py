"""A broker for MQTT 3.1.1, as small as clients of one test need it: no retained messages, no wills.

Messages go to subscribers of exactly their topic, with the lower QoS of 0 and 1.
"""

from __future__ import annotations

import socketserver
import struct
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedIOBase

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14


class Broker(socketserver.ThreadingTCPServer):
    """A server on a port of its own; what it is told is in ``seen``, by kind of packet."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.port = self.server_address[1]
        self.seen: defaultdict[int, list[bytes]] = defaultdict(list)
        self.subscribers: defaultdict[bytes, dict[_Connection, int]] = defaultdict(dict)
        self.lock = threading.Lock()
        self.told = threading.Condition()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def server_close(self) -> None:
        """End it, and its thread."""
        self.shutdown()
        self._thread.join()
        super().server_close()

    def wait_for(self, kind: int, count: int) -> None:
        """Wait until it has been told so much; ``TimeoutError`` after a minute."""
        with self.told:
            if not self.told.wait_for(lambda: len(self.seen[kind]) >= count, 60):
                raise TimeoutError

    def publish(self, topic: bytes, qos: int, payload: bytes) -> None:
        """Send a message to whom it may concern."""
        with self.lock:
            subscribers = list(self.subscribers[topic].items())
        for subscriber, most in subscribers:
            subscriber.deliver(topic, min(qos, most), payload)


class _Connection(socketserver.StreamRequestHandler):
    server: Broker

    def setup(self) -> None:
        super().setup()
        self._sending = threading.Lock()
        self._number = 0

    def handle(self) -> None:
        while packet := _read(self.rfile):
            kind, flags, body = packet
            with self.server.told:
                self.server.seen[kind].append(body)
                self.server.told.notify_all()
            if kind == DISCONNECT:
                break
            self._answer(kind, flags, body)

    def finish(self) -> None:
        with self.server.lock:
            for subscribers in self.server.subscribers.values():
                subscribers.pop(self, None)
        super().finish()

    def _answer(self, kind: int, flags: int, body: bytes) -> None:
        if kind == CONNECT:
            self._send(CONNACK, 0, b"\0\0")
        elif kind == PUBLISH:
            self._take(flags >> 1 & 3, body)
        elif kind == SUBSCRIBE:
            topic, rest = _string(body[2:])
            with self.server.lock:
                self.server.subscribers[topic][self] = min(rest[0], 1)
            self._send(SUBACK, 0, body[:2] + bytes([min(rest[0], 1)]))
        elif kind == UNSUBSCRIBE:
            with self.server.lock:
                self.server.subscribers[_string(body[2:])[0]].pop(self, None)
            self._send(UNSUBACK, 0, body[:2])
        elif kind == PINGREQ:
            self._send(PINGRESP, 0, b"")

    def _take(self, qos: int, body: bytes) -> None:
        topic, rest = _string(body)
        if qos:
            self._send(PUBACK, 0, rest[:2])
            rest = rest[2:]
        self.server.publish(topic, qos, rest)

    def deliver(self, topic: bytes, qos: int, payload: bytes) -> None:
        with self._sending:
            self._number = self._number % 0xFFFF + 1
            number = self._number
        head = struct.pack(">H", len(topic)) + topic
        self._send(PUBLISH, qos << 1, head + struct.pack(">H", number) * (qos > 0) + payload)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        with self._sending:
            self.wfile.write(bytes([kind << 4 | flags]) + _length(len(body)) + body)


def _read(file: BufferedIOBase) -> tuple[int, int, bytes] | None:
    head = file.read(1)
    if not head:
        return None
    size = shift = 0
    more = True
    while more:
        byte = file.read(1)[0]
        size |= (byte & 0x7F) << shift
        shift, more = shift + 7, byte >= 0x80
    return head[0] >> 4, head[0] & 15, file.read(size)


def _length(size: int) -> bytes:
    out = b""
    while size >= 0x80:
        out += bytes([size & 0x7F | 0x80])
        size >>= 7
    return out + bytes([size])


def _string(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:2], "big")
    return data[2 : 2 + size], data[2 + size :]
