"""Answers each request and closes the connection before the client does. A request of /abort gets no
answer, and a close with SO_LINGER and a time of zero. Writes its port to the file named by its argument."""

import os
import socket
import struct
import sys

NO_TIME = struct.pack("ii", 1, 0)

listener = socket.create_server(("127.0.0.1", 0))
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(listener.getsockname()[1]))
# The file appears only once it is complete.
os.rename(sys.argv[1] + ".new", sys.argv[1])

while True:
    connection, _ = listener.accept()
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(4096)
    if request.startswith(b"GET /abort "):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_TIME)
    else:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello\n")
    connection.close()
