"""aioquic as a client and as a server of HTTP/3."""

import asyncio
import hashlib

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, StreamDataReceived
from aioquic.quic.packet import QuicProtocolVersion

from http3_harness import FILES, PATIENCE, expect, same

VERSIONS = {"v1": QuicProtocolVersion.VERSION_1, "v2": QuicProtocolVersion.VERSION_2}


class Peer(QuicConnectionProtocol):
    """Either end: requests and responses as they are complete."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.messages = {}
        self.waiting = {}
        self.ended = set()

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        for found in (self.http.handle_event(event) if self.http else ()):
            message = self.messages.setdefault(found.stream_id, [{}, bytearray()]) if hasattr(found, "stream_id") else None
            if isinstance(found, HeadersReceived):
                message[0].update(found.headers)
            elif isinstance(found, DataReceived):
                message[1] += found.data
        # (`stream_ended` of its events does not come where the last frame is one that nobody knows; and an end that comes twice is told twice.)
        ends = isinstance(event, StreamDataReceived) and event.end_stream and event.stream_id in self.messages
        if ends and event.stream_id not in self.ended:
            self.ended.add(event.stream_id)
            self.complete(event.stream_id, *self.messages.pop(event.stream_id))

    def complete(self, stream_id, headers, content):
        if stream_id in self.waiting:
            self.waiting.pop(stream_id).set_result((headers, content))
            return
        if headers[b":method"] == b"POST":
            content = hashlib.sha256(content).hexdigest().encode()
        else:
            content = FILES.get(headers[b":path"].decode().lstrip("/"))
        self.send(stream_id, {b":status": b"404" if content is None else b"200"}, content or b"")

    def send(self, stream_id, headers, content):
        self.http.send_headers(stream_id, list(headers.items()), end_stream=not content)
        if content:
            self.http.send_data(stream_id, content, end_stream=True)
        self.transmit()

    async def ask(self, method, path, content=b""):
        stream_id = self._quic.get_next_available_stream_id()
        done = self.waiting[stream_id] = asyncio.get_running_loop().create_future()
        headers = {b":method": method, b":scheme": b"https", b":authority": b"localhost", b":path": path}
        self.send(stream_id, headers, content)
        return await done


def client(address, roots, version):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
    configuration.load_verify_locations(roots)
    configuration.original_version = VERSIONS[version]
    configuration.supported_versions = [VERSIONS[version]]

    async def requests():
        async with connect(*address, configuration=configuration, create_protocol=Peer) as peer:
            asked = [peer.ask(b"GET", b"/" + name.encode()) for name in FILES]
            for (name, content), (headers, found) in zip(FILES.items(), await asyncio.gather(*asked)):
                expect(headers[b":status"] == b"200" and same(found, content), f"{name}: {headers} {len(found)} bytes")
            headers, _ = await peer.ask(b"GET", b"/missing")
            expect(headers[b":status"] == b"404", headers)
            # An answer that comes before the request is complete.
            headers, _ = await peer.ask(b"POST", b"/small.txt", FILES["large.bin"])
            expect(headers[b":status"] == b"405", headers)

    asyncio.run(asyncio.wait_for(requests(), PATIENCE))


def server(address, chain, key, requests, version):
    """Serves by this version alone while `requests` runs."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN, supported_versions=[VERSIONS[version]])
    configuration.load_cert_chain(chain, key)

    async def serving():
        listening = await serve(*address, configuration=configuration, create_protocol=Peer)
        try:
            await asyncio.to_thread(requests, address)
        finally:
            listening.close()

    asyncio.run(serving())
