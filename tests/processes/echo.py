"""A child for tests: says back what it hears, with the descriptors; other words are orders."""

import os
import sys
import time

from outpost.processes import child, message

sock = child.inherited(sys.argv[1])
while (found := message.receive(sock)) is not None:
    if found.body == b"environment":
        message.send(sock, "\n".join(f"{name}={value}" for name, value in os.environ.items()).encode())
    elif found.body == b"arguments":
        message.send(sock, "\0".join(sys.orig_argv).encode())
    elif found.body == b"sleep":
        time.sleep(600)
    elif found.body == b"exit":
        raise SystemExit(3)
    else:
        message.send(sock, found.body, found.descriptors)
    found.close()
