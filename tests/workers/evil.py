"""A worker for tests that behaves as `EVIL` says; `honest` says that it serves and then nothing wrong."""

import contextlib
import os
import random
import sys
import time

from outpost.processes import child, message
from outpost.workers import words
from outpost.workers.words import TO_PARENT, TO_WORKER, Configure

manner = os.environ["EVIL"]
sock = child.inherited(sys.argv[1])
first = message.receive(sock)
assert first is not None and isinstance(TO_WORKER.decode(first.body), Configure)
first.close()
if manner == "exit":
    raise SystemExit(7)
if manner == "silent":
    time.sleep(600)
if manner == "refuses":
    message.send(sock, TO_PARENT.encode(words.Failed("settings: they are wrong")))
    raise SystemExit(2)
message.send(sock, TO_PARENT.encode(words.Serving()))
chance = random.Random(manner)
if manner in {"noise", "strange", "descriptors"}:
    # Long enough for the parent to have seen it serve.
    time.sleep(0.2)
if manner == "noise":
    with contextlib.suppress(OSError):
        sock.send(bytes(chance.randrange(1, 256) for _ in range(chance.randrange(1, 300))))
elif manner == "strange":
    message.send(sock, TO_WORKER.encode(words.Refused(b"key")))
elif manner == "descriptors":
    message.send(sock, b"[]", [0, 1, 2])
elif manner == "deaf":
    time.sleep(600)
while True:
    heard = message.receive(sock)
    if heard is None:
        break
    heard.close()
    if isinstance(TO_WORKER.decode(heard.body), words.State):
        message.send(sock, TO_PARENT.encode(words.Alive()))
    elif isinstance(TO_WORKER.decode(heard.body), words.Drain):
        break
