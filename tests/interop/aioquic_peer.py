"""aioquic as a peer: command line and protocol are those of the other peers, of the scenarios only transfers of so many bytes, and requests that resume a
session, with 0-RTT."""

import argparse
import asyncio
import functools
import json
import os
import sys
import time

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived
from aioquic.quic.packet import QuicProtocolVersion

HEADER_LEN = 8
WINDOW = 128 << 20
VERSIONS = {"v1": QuicProtocolVersion.VERSION_1, "v2": QuicProtocolVersion.VERSION_2}
PATTERN = bytes(offset % 251 for offset in range(65536 + 251))


def piece(offset, length):
    start = offset % 251
    return PATTERN[start : start + min(length, 65536)]


def matches(offset, data):
    for start in range(0, len(data), 65536):
        part = data[start : start + 65536]
        if piece(offset + start, len(part)) != part:
            return False
    return True


def duration(text):
    for unit, seconds in (("ms", 1e-3), ("s", 1.0)):
        if text.endswith(unit):
            return float(text[: -len(unit)]) * seconds
    raise ValueError("a time is such as 300ms or 2s")


def configuration(is_client):
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=["perf"],
        secrets_log_file=open(os.environ["SSLKEYLOGFILE"], "a") if "SSLKEYLOGFILE" in os.environ else None,
        max_data=WINDOW,
        max_stream_data=WINDOW,
        idle_timeout=30,
    )


class Server(QuicConnectionProtocol):
    def __init__(self, *args, verify, **kwargs):
        super().__init__(*args, **kwargs)
        self.verify = verify
        self.requests = {}

    def quic_event_received(self, event):
        if not isinstance(event, StreamDataReceived):
            return
        header, received, right = self.requests.get(event.stream_id, (b"", 0, True))
        data = event.data
        if len(header) < HEADER_LEN:
            count = HEADER_LEN - len(header)
            header, data = header + data[:count], data[count:]
        right = right and (not self.verify or matches(received, data))
        received += len(data)
        self.requests[event.stream_id] = (header, received, right)
        if event.end_stream:
            if len(header) < HEADER_LEN or not right:
                self._quic.reset_stream(event.stream_id, 1)
                return
            length, sent = int.from_bytes(header, "big"), 0
            while sent < length:
                part = piece(sent, length - sent)
                sent += len(part)
                self._quic.send_stream_data(event.stream_id, part)
            self._quic.send_stream_data(event.stream_id, b"", end_stream=True)


class Client(QuicConnectionProtocol):
    def __init__(self, *args, verify, **kwargs):
        super().__init__(*args, **kwargs)
        self.verify = verify
        self.received = 0
        self.right = True
        self.done = asyncio.get_event_loop().create_future()
        self.update_at = None
        self.resumed = False

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self.right = self.right and (not self.verify or matches(self.received, event.data))
            self.received += len(event.data)
            if self.update_at is not None and self.received >= self.update_at:
                self.update_at = None
                self._quic.request_key_update()
            if event.end_stream and not self.done.done():
                self.done.set_result(None)
        elif isinstance(event, HandshakeCompleted):
            self.resumed = event.session_resumed
        elif isinstance(event, ConnectionTerminated) and not self.done.done():
            self.done.set_exception(RuntimeError(f"connection ended: {event.error_code:#x} {event.reason_phrase}"))


async def run_server(args):
    config = configuration(is_client=False)
    config.load_cert_chain(args.cert, args.key)
    host, port = args.bind.rsplit(":", 1)
    protocol = functools.partial(Server, verify=args.verify)
    tickets = {}
    server = await serve(
        host,
        int(port),
        configuration=config,
        create_protocol=protocol,
        retry=args.retry,
        session_ticket_fetcher=(lambda label: tickets.pop(label, None)) if args.resumption != "none" else None,
        session_ticket_handler=(lambda ticket: tickets.__setitem__(ticket.ticket, ticket))
        if args.resumption != "none"
        else None,
    )
    address = server._transport.get_extra_info("sockname")
    print(f"LISTENING {address[0]}:{address[1]}", flush=True)
    await asyncio.Future()


async def say_something(client, interval):
    while True:
        await asyncio.sleep(interval)
        client._quic.send_ping(1)
        client.transmit()


async def request(args, config, length, tickets):
    """One connection with one request, which goes in 0-RTT if there is a ticket for it."""
    host, port = args.target.rsplit(":", 1)
    protocol = functools.partial(Client, verify=args.verify)
    async with connect(
        host,
        int(port),
        configuration=config,
        create_protocol=protocol,
        session_ticket_handler=tickets.append,
        wait_connected=False,
    ) as client:
        stream_id = client._quic.get_next_available_stream_id()
        body = piece(0, 512 - HEADER_LEN)
        client._quic.send_stream_data(stream_id, length.to_bytes(HEADER_LEN, "big") + body, end_stream=True)
        client.transmit()
        await asyncio.wait_for(client.done, 60)
        deadline = time.monotonic() + 10
        while not tickets and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if client.received != length or not client.right:
            sys.exit(f"{client.received} bytes, right: {client.right}")
        if args.resume and config.session_ticket and not client.resumed:
            sys.exit("a session was not resumed: a connection that had a ticket was set up by a full handshake")


async def run_requests(args):
    config = configuration(is_client=True)
    config.load_verify_locations(args.ca)
    if args.cert:
        config.load_cert_chain(args.cert, args.key)
    config.server_name = args.server_name
    end = time.monotonic() + args.time
    count = 0
    tickets = []
    while time.monotonic() < end or count < 5:
        await request(args, config, 4000, tickets)
        count += 1
        if not tickets:
            sys.exit("no ticket came")
        config.session_ticket = tickets.pop()
        if args.resume:
            # Whoever has none of it sends nothing in 0-RTT.
            config.session_ticket.max_early_data_size = None
        tickets.clear()
    # The first has had no ticket.
    print(json.dumps({"bytes": 4000 * count, "operations": count - 1}))


async def run_client(args):
    if args.scenario in ("hps", "latency-0rtt"):
        await run_requests(args)
        return
    config = configuration(is_client=True)
    config.load_verify_locations(args.ca)
    if args.cert:
        config.load_cert_chain(args.cert, args.key)
    config.server_name = args.server_name
    if args.quic:
        config.original_version = VERSIONS[args.quic]
    if args.versions:
        config.supported_versions = [VERSIONS[name] for name in args.versions.split(",")]
    elif args.quic:
        # Its own version before the others.
        config.supported_versions.sort(key=lambda version: version != config.original_version)
    host, port = args.target.rsplit(":", 1)
    protocol = functools.partial(Client, verify=args.verify)
    async with connect(host, int(port), configuration=config, create_protocol=protocol) as client:
        start = time.monotonic()
        upload = args.bytes if args.scenario == "upload" else 0
        download = args.bytes if args.scenario == "download" else 0
        stream_id = client._quic.get_next_available_stream_id()
        client._quic.send_stream_data(stream_id, download.to_bytes(HEADER_LEN, "big"))
        if args.key_update:
            if download:
                client.update_at = args.bytes // 2
            else:
                client._quic.request_key_update()
        sent = 0
        while sent < upload:
            part = piece(sent, upload - sent)
            sent += len(part)
            client._quic.send_stream_data(stream_id, part)
        client._quic.send_stream_data(stream_id, b"", end_stream=True)
        client.transmit()
        keep_alive = asyncio.ensure_future(say_something(client, args.keep_alive)) if args.keep_alive else None
        await asyncio.wait_for(client.done, 60)
        if keep_alive:
            keep_alive.cancel()
        moved = upload or client.received
        if moved != args.bytes or not client.right:
            sys.exit(f"{moved} bytes, right: {client.right}")
        seconds = time.monotonic() - start
        quic = next(name for name, version in VERSIONS.items() if version == client._quic._version)
        figures = {"bytes": moved, "seconds": seconds, "goodput_gbit_s": moved * 8e-9 / seconds, "connections": {"quic": quic}}
        print(json.dumps(figures))


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("server")
    server.add_argument("--bind", required=True)
    server.add_argument("--cert", required=True)
    server.add_argument("--key", required=True)
    server.add_argument("--retry", action="store_true")
    server.add_argument("--resumption", choices=["none", "resume", "zero-rtt"], default="none")
    server.add_argument("--verify", action="store_true")
    client = commands.add_parser("client")
    client.add_argument("--target", required=True)
    client.add_argument("--server-name", default="localhost")
    client.add_argument("--ca", required=True)
    client.add_argument("--scenario", choices=["upload", "download", "hps", "latency-0rtt"], required=True)
    client.add_argument("--bytes", type=int)
    client.add_argument("--time", type=duration, default=0.0)
    client.add_argument("--connections")
    client.add_argument("--resume", action="store_true")
    client.add_argument("--cert")
    client.add_argument("--key")
    client.add_argument("--quic", choices=VERSIONS)
    client.add_argument("--versions")
    client.add_argument("--keep-alive", type=duration)
    client.add_argument("--key-update", action="store_true")
    client.add_argument("--verify", action="store_true")
    client.add_argument("--json", action="store_true")
    args = parser.parse_args()
    asyncio.run(run_server(args) if args.command == "server" else run_client(args))


main()
