"""`outpost run`: the process from its settings to its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from outpost.app import hardening, sockets
from outpost.app.appliance import Appliance
from outpost.config.sections import ListenSettings, LogSettings, ProcessSettings
from outpost.config.settings import Settings
from outpost.observe import logs
from outpost.observe.logs import LogWriter
from outpost.processes import memory

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
KINDS = {"ldap": STREAM, "ldaps": STREAM, "radius": DATAGRAM, "metrics": STREAM}
REFRESHES = (signal.SIGHUP, signal.SIGUSR1)
ROLL = signal.SIGUSR2
LOGGER = "outpost"


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; 0. Raises ConfigError, and ListenError when an address cannot be had."""
    process = settings.part(ProcessSettings)
    # Until there is something to refresh, a refresh must not be the end of the process.
    for number in REFRESHES if process.workers == 1 else (*REFRESHES, ROLL):
        signal.signal(number, signal.SIG_IGN)
    if not process.core_dumps:
        hardening.forbid_core_dumps()
    hardening.return_memory()
    files = hardening.raise_file_limit()
    writer = log_writer(settings.part(LogSettings))
    logs.configure(writer)
    try:
        for note in settings.notes:
            writer.put("debug", LOGGER, note, {})
        writer.put("debug", LOGGER, "limits", {"files": files})
        with contextlib.ExitStack() as stack:
            opened = open_listeners(settings.part(ListenSettings), process.workers)
            for sock in (s for slot in opened for group in slot.values() for s in group):
                stack.callback(sock.close)
            uvloop.run(serve(settings, opened, writer))
    finally:
        writer.stop()
    return 0


def log_writer(settings: LogSettings) -> LogWriter:
    """The writer to stderr: text for people, JSON otherwise."""
    is_text = settings.debug or settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    return LogWriter(sys.stderr.fileno(), is_json=not is_text, level=settings.level)


def open_listeners(settings: ListenSettings, workers: int = 1) -> list[dict[str, list[socket.socket]]]:
    """Every listener's sockets by service, for each process; all or none. Only the first has those of `metrics`.

    Raises ListenError.
    """
    is_shared = workers > 1
    opened: list[dict[str, list[socket.socket]]] = [{} for _ in range(workers)]
    try:
        for service, kind in KINDS.items():
            shares = is_shared and service != "metrics"
            first = opened[0][service] = sockets.open_all(service, getattr(settings, service), kind, is_shared=shares)
            for further in opened[1:] if shares else ():
                further[service] = sockets.share(service, first)
    except BaseException:
        for sock in (s for slot in opened for group in slot.values() for s in group):
            sock.close()
        raise
    return opened


async def serve(settings: Settings, opened: list[dict[str, list[socket.socket]]], writer: LogWriter) -> None:
    """The appliance from its start to its stop."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: logs.loop_failed(writer, context))
    stopped = asyncio.Event()
    refreshes: set[asyncio.Task[None]] = set()
    appliance = Appliance(settings, writer)

    def begin(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = loop.create_task(work())
        refreshes.add(task)
        task.add_done_callback(refreshes.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        await appliance.start(*opened)
        for number in REFRESHES:
            loop.add_signal_handler(number, begin, appliance.refresh)
        if len(opened) > 1:
            loop.add_signal_handler(ROLL, begin, appliance.roll)
        for service, group in opened[0].items():
            for sock in group:
                writer.put("info", LOGGER, "listening", {"service": service, "address": _place(sock)})
        # What lives from here to the end need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        memory.give_back()
        # Whether logins and searches can be answered yet is what /-/ready tells.
        writer.put("info", LOGGER, "started", {})
        await stopped.wait()
        writer.put("info", LOGGER, "stopping", {})
    finally:
        for task in tuple(refreshes):
            task.cancel()
        await appliance.stop(settings.part(ProcessSettings).drain_s)
    writer.put("info", LOGGER, "stopped", {})


def _place(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
