"""The servers of the cookbook's cases.

Arguments: the case, the port, a file, and numbers. Each close writes a line to the file: its expected outcome,
and the connection's queues as the kernel reported them just before it.
"""

import fcntl
import json
import os
import signal
import socket
import ssl
import struct
import sys
import time

SIOCOUTQ, SIOCOUTQNSD, FIONREAD = 0x5411, 0x894B, 0x541B
TCPI_UNACKED = 24
ANSWER = b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 20000
TOO_LARGE = b"HTTP/1.0 413 Content Too Large\r\n\r\n"

case, port, path, *numbers = sys.argv[1:]
port, numbers = int(port), [int(number) for number in numbers]
report = open(path, "w", buffering=1)


def ioctl(connection, what):
    return struct.unpack("i", fcntl.ioctl(connection, what, bytes(4)))[0]


def tell(outcome, connection):
    """Records the queues before a close. They may hold no FIN, unless they hold nothing else."""
    outstanding, unsent, unread = (
        ioctl(connection, what) for what in (SIOCOUTQ, SIOCOUTQNSD, FIONREAD)
    )
    line = {"outcome": outcome, "unsent": unsent, "unacked": outstanding - unsent, "unread": unread}
    report.write(json.dumps(line) + "\n")


def close(outcome, connection):
    tell(outcome, connection)
    connection.close()


def wait_until(reached):
    while not reached():
        time.sleep(0.001)


def read_to_end(connection):
    """Reads until the peer's FIN, or its RST."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass


def close_after_peer(connection):
    """Closes as the cookbook advises: the peer has everything once its own FIN arrives."""
    connection.shutdown(socket.SHUT_WR)
    read_to_end(connection)
    connection.close()
    report.write('{"outcome": "already_closed", "unsent": 0, "unacked": 0, "unread": 0}\n')


def set_linger(connection, seconds):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))


def listen():
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    return listener


def close_listener(listener):
    listener.close()
    report.write('{"outcome": "listener", "unsent": 0, "unacked": 0, "unread": 0}\n')


def early_answer(connections, head, length, reads):
    """Answers after reading the head, then reads the rest or does not."""
    listener = listen()
    for _ in range(connections):
        connection, _ = listener.accept()
        wait_until(lambda: ioctl(connection, FIONREAD) == length)
        connection.recv(head)
        connection.sendall(TOO_LARGE)
        wait_until(lambda: ioctl(connection, SIOCOUTQ) == 0)
        if reads:
            close_after_peer(connection)
        else:
            close("unread_aborted", connection)
    close_listener(listener)


def linger_zero(connections, pause, waits):
    """Sends messages, each over its own connection."""
    for _ in range(connections):
        time.sleep(pause / 1000)
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(ANSWER)
        if waits:
            close_after_peer(connection)
        else:
            set_linger(connection, 0)
            close("linger_aborted", connection)


def event_loop(connections, seconds):
    """Closes after its answer, in its only thread."""
    listener = listen()
    for _ in range(connections):
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(ANSWER)
        connection.setblocking(False)
        if seconds:
            set_linger(connection, seconds)
            close("linger_timeout", connection)
        else:
            close("graceful", connection)
    close_listener(listener)


def after_close(connections, waits):
    """Closes after its answer, or after its peer has closed."""
    listener = listen()
    for _ in range(connections):
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(ANSWER)
        if waits:
            close_after_peer(connection)
        else:
            close("graceful", connection)
    close_listener(listener)


def shutdown(busy, queued, length, drains):
    """Gets SIGTERM with requests that it has not read, and connections that it has not accepted."""
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    listener = listen()
    connections = [listener.accept()[0] for _ in range(busy)]
    for connection in connections:
        wait_until(lambda: ioctl(connection, FIONREAD) == length)

    def in_queue():
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return struct.unpack_from("I", info, TCPI_UNACKED)[0]

    wait_until(lambda: in_queue() == queued)
    open(path + ".ready", "w").close()
    wait_until(lambda: told)
    if not drains:
        for connection in connections:
            tell("unread_aborted", connection)
        report.write('{"outcome": "listener", "unsent": 0, "unacked": 0, "unread": 0}\n')
        os._exit(0)
    connections += [listener.accept()[0] for _ in range(queued)]
    close_listener(listener)
    for connection in connections:
        wait_until(lambda: ioctl(connection, FIONREAD) == length)
        connection.recv(65536)
        connection.sendall(ANSWER)
        close_after_peer(connection)


def keepalive(connections):
    """Has the kernel probe silent peers (SO_KEEPALIVE)."""
    listener = listen()
    accepted = []
    for _ in range(connections):
        connection, _ = listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
            connection.setsockopt(socket.IPPROTO_TCP, option, 1)
        accepted.append(connection)
    for connection in accepted:
        try:
            connection.recv(1)
            sys.exit("the peer is there")
        except TimeoutError:
            close("already_closed", connection)
    close_listener(listener)


def close_notify(connections, waits):
    """Ends TLS sessions with a `close_notify`, and closes at once or after the client's has arrived."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path + ".pem")
    listener = listen()
    for _ in range(connections):
        accepted, _ = listener.accept()
        connection = context.wrap_socket(accepted, server_side=True)
        connection.recv(65536)
        connection.sendall(b"answer")
        if waits:
            close("graceful", connection.unwrap())
            continue
        connection.setblocking(False)
        try:
            connection.unwrap()
            sys.exit("the client was first")
        except ssl.SSLWantReadError:
            wait_until(lambda: ioctl(connection, SIOCOUTQ) == 0)
            close("graceful", connection)
    close_listener(listener)


{
    "early_answer": early_answer,
    "linger_zero": linger_zero,
    "event_loop": event_loop,
    "after_close": after_close,
    "shutdown": shutdown,
    "keepalive": keepalive,
    "close_notify": close_notify,
}[case](*numbers)
