"""Stands for the Python of a process that a command starts: asks the server to fork one, and is to its parent what that one would be.

The harness writes it, behind a first line that names the interpreter, as the `sys.executable` of the commands that it runs. It starts
in hundredths of a second, the Python that it stands for would import torch for seconds.
"""

import json
import os
import signal
import socket
import sys

server = socket.socket(socket.AF_UNIX)
server.connect(os.environ["NOODLE_FORKS"])
order = json.dumps({"argv": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
socket.send_fds(server, [len(order).to_bytes(4, "big")], [0, 1, 2])
server.sendall(order)
pid = int.from_bytes(server.recv(4, socket.MSG_WAITALL), "big")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = int.from_bytes(server.recv(4, socket.MSG_WAITALL), "big", signed=True)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
