"""What the cases of http3.py stand on: files, a certificate, servers that end, a tally."""

import datetime
import hashlib
import ipaddress
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# Seconds that anything may take on a busy machine: less than it does where something hangs.
PATIENCE = 90
LARGE = 5_000_000
FILES = {"small.txt": b"small", "empty.bin": b"", "large.bin": bytes(at * at % 251 for at in range(LARGE // 10)) * 10}


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

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        sys.exit(self.failed != 0)


def run(command, **options):
    """A program that must succeed; what it says is shown if it does not."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, **options)
    except subprocess.TimeoutExpired as error:
        said = ((error.stdout or b"")[-1000:] + (error.stderr or b"")).decode(errors="replace")
        raise AssertionError(f"not within {PATIENCE} s\n{said}")
    said = done.stderr.decode(errors="replace")
    expect(done.returncode == 0, f"exit code {done.returncode}, {len(done.stdout)} bytes\n{said}")
    return done.stdout


def check_folder(folder, names=FILES):
    """Whether a client has written these files there."""
    for name in names:
        path = folder / name
        found = path.read_bytes() if path.exists() else None
        expect(found is not None and same(found, FILES[name]), f"{name}: {None if found is None else len(found)} bytes")
