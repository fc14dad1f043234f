"""HTTP/3 with other stacks: their clients against `http3_file_server`, and `download` against their servers; contents are checked by hash.

Usage: http3.py FOLDER_OF_EXAMPLES. What is not installed is skipped: curl_cffi (of this Python), caddy (in the path, or where CADDY says).
"""

import asyncio
import datetime
import functools
import hashlib
import ipaddress
import os
import pathlib
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, StreamDataReceived
from aioquic.quic.packet import QuicProtocolVersion
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# Seconds that anything may take on a busy machine: less than it does where something hangs.
PATIENCE = 90
LARGE = 5_000_000
FILES = {"small.txt": b"small", "empty.bin": b"", "large.bin": bytes(at * at % 251 for at in range(LARGE // 10)) * 10}
VERSIONS = {"v1": QuicProtocolVersion.VERSION_1, "v2": QuicProtocolVersion.VERSION_2}


def make_certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=10))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)


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


def aioquic_client(address, roots, version):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
    configuration.load_verify_locations(roots)
    configuration.original_version = VERSIONS[version]
    configuration.supported_versions = [VERSIONS[version]]

    async def requests():
        async with connect(*address, configuration=configuration, create_protocol=Peer) as client:
            asked = [client.ask(b"GET", b"/" + name.encode()) for name in FILES]
            for (name, content), (headers, found) in zip(FILES.items(), await asyncio.gather(*asked)):
                expect(headers[b":status"] == b"200" and same(found, content), f"{name}: {headers} {len(found)} bytes")
            headers, _ = await client.ask(b"GET", b"/missing")
            expect(headers[b":status"] == b"404", headers)
            # An answer that comes before the request is complete.
            headers, _ = await client.ask(b"POST", b"/small.txt", FILES["large.bin"])
            expect(headers[b":status"] == b"405", headers)

    asyncio.run(asyncio.wait_for(requests(), PATIENCE))


def curl_client(address, roots):
    from curl_cffi import CurlHttpVersion, requests

    with requests.Session(http_version=CurlHttpVersion.V3ONLY, verify=str(roots)) as session:
        for name, content in FILES.items():
            for _ in range(5):
                response = session.get(f"https://localhost:{address[1]}/{name}", timeout=PATIENCE)
                expect(response.status_code == 200 and same(response.content, content), f"{name}: {response}")
        ranged = session.get(f"https://localhost:{address[1]}/large.bin", headers={"range": "bytes=7-11"}, timeout=PATIENCE)
        expect(ranged.status_code == 206 and ranged.content == FILES["large.bin"][7:12], f"range: {ranged}")


def download(examples, address, roots):
    """Our client."""
    for name, content in FILES.items():
        run = get(examples, address, name, roots)
        expect(run.returncode == 0 and same(run.stdout, content), f"{name}: exit code {run.returncode}, {len(run.stdout)} bytes\n{run.stderr.decode()}")
    run = get(examples, address, "missing", roots)
    expect(run.returncode != 0 and b"404" in run.stderr, f"missing: {run}")


def get(examples, address, name, roots):
    command = [examples / "download", "%s:%d" % address, "localhost", f"/{name}", roots]
    try:
        return subprocess.run(command, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{name}: not within {PATIENCE} s, {len(error.stdout or b'')} bytes\n{(error.stderr or b'').decode()}")


def same(found, content):
    return hashlib.sha256(found).digest() == hashlib.sha256(content).digest()


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def free_port():
    """One that is free for both protocols, and that no socket gets which asks for any: until a server binds it, nobody else does."""
    first_of_any = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        address = ("127.0.0.1", random.randrange(10000, max(first_of_any, 11000)))
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                udp.bind(address)
                tcp.bind(address)
                return address
            except OSError:
                continue


def is_bound(port):
    """Whether a socket for QUIC has this port."""
    tables = [pathlib.Path(name) for name in ("/proc/net/udp", "/proc/net/udp6")]
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return any(int(line.split()[1].rpartition(":")[2], 16) == port for line in lines)


class Running:
    """A server that ends with its test. What it says is shown if the test fails."""

    def __init__(self, command, address, **options):
        self.address = address
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output, **options)

    def __enter__(self):
        try:
            deadline = time.monotonic() + PATIENCE
            while not is_bound(self.address[1]):
                expect(self.process.poll() is None, f"the server ended before it listened: exit code {self.process.poll()}")
                expect(time.monotonic() < deadline, f"the server does not listen at {self.address}")
                time.sleep(0.02)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self.address

    def __exit__(self, _, error, __):
        self.process.kill()
        self.process.wait()
        if error:
            self.output.seek(0)
            said = self.output.read().decode(errors="replace")[-3000:]
            error.add_note(f"-- the server said:\n{said}")
        self.output.close()


class Tally:
    passed = failed = skipped = 0

    def test(self, name, run):
        try:
            run()
            self.passed += 1
            print(f"ok {name}", flush=True)
        except Exception as error:  # whatever it is: the others go on
            self.failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {str(error)[-3000:]}", *getattr(error, "__notes__", ()), sep="\n", flush=True)

    def skip(self, name, why):
        self.skipped += 1
        print(f"SKIP {name}: {why}", flush=True)


def main():
    examples = pathlib.Path(sys.argv[1]).resolve()
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        site = folder / "site"
        site.mkdir()
        for name, content in FILES.items():
            (site / name).write_bytes(content)
        make_certificate(folder)
        chain, key = folder / "chain.pem", folder / "key.pem"

        def against_us(client):
            address = free_port()
            with Running([examples / "http3_file_server", "%s:%d" % address, chain, key, site], address):
                client(address, chain)

        for version in VERSIONS:
            client = functools.partial(aioquic_client, version=version)
            tally.test(f"HTTP/3: client aioquic {version}", lambda: against_us(client))
        try:
            import curl_cffi  # noqa: F401
        except ImportError:
            tally.skip("HTTP/3: client curl_cffi", "it is not installed")
        else:
            tally.test("HTTP/3: client curl_cffi", lambda: against_us(curl_client))

        async def against_aioquic():
            configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
            configuration.load_cert_chain(chain, key)
            address = free_port()
            server = await serve(*address, configuration=configuration, create_protocol=Peer)
            try:
                await asyncio.to_thread(download, examples, address, chain)
            finally:
                server.close()

        tally.test("HTTP/3: server aioquic", lambda: asyncio.run(against_aioquic()))

        caddy = os.environ.get("CADDY") or shutil.which("caddy")
        if caddy:
            address = free_port()
            text = f"""{{
                admin off
                auto_https disable_redirects
            }}
            https://localhost:{address[1]} {{
                bind 127.0.0.1
                tls {chain} {key}
                root * {site}
                file_server
            }}"""
            (folder / "Caddyfile").write_text(text)
            os.environ["XDG_DATA_HOME"] = os.environ["XDG_CONFIG_HOME"] = str(folder)
            command = [caddy, "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]

            def against_caddy():
                with Running(command, address):
                    download(examples, address, chain)

            tally.test("HTTP/3: server caddy", against_caddy)
        else:
            tally.skip("HTTP/3: server caddy", "it is not installed")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    sys.exit(tally.failed != 0)


main()
