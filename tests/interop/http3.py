"""HTTP/3 with other stacks: their clients against `http3_file_server`, and `download` against their servers; contents are checked by hash.

--stacks are programs of perf/peers, in the folder --peers; --debian is what packages.sh has unpacked. curl_cffi is skipped where this Python lacks it.
Each case runs on the next of these backends in turn, with --all on each of them.
"""

import argparse
import functools
import hashlib
import itertools
import os
import pathlib
import subprocess
import tempfile

import http3_aioquic
import http3_debian
from http3_harness import FILES, PATIENCE, Running, Tally, check_folder, expect, free_port, make_certificate, run, same


def curl_client(address, roots):
    from curl_cffi import CurlHttpVersion, requests

    with requests.Session(http_version=CurlHttpVersion.V3ONLY, verify=str(roots)) as session:
        for name, content in FILES.items():
            for _ in range(5):
                response = session.get(f"https://localhost:{address[1]}/{name}", timeout=PATIENCE)
                expect(response.status_code == 200 and same(response.content, content), f"{name}: {response}")
        ranged = session.get(f"https://localhost:{address[1]}/large.bin", headers={"range": "bytes=7-11"}, timeout=PATIENCE)
        expect(ranged.status_code == 206 and ranged.content == FILES["large.bin"][7:12], f"range: {ranged}")


class Cases:
    def __init__(self, arguments, folder):
        self.examples, self.peers = arguments.examples.resolve(), arguments.peers.resolve()
        self.folder, self.tally = folder, Tally()
        self.every_backend, self.next_backend = arguments.backends if arguments.all else (), itertools.cycle(arguments.backends)
        self.site = folder / "site"
        self.site.mkdir()
        for name, content in FILES.items():
            (self.site / name).write_bytes(content)
        make_certificate(folder)
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"

    def test(self, name, case):
        for backend in self.every_backend or (next(self.next_backend),):
            os.environ["RINGWAY_DATAPATH__BACKEND"] = backend
            self.tally.test(f"HTTP/3 on {backend}: {name}", case)

    def client(self, name, client):
        """A client of theirs: a function of the server's address and of the certificates to trust."""

        def case():
            address = free_port()
            command = [self.examples / "http3_file_server", "%s:%d" % address, self.chain, self.key, self.site]
            with Running(command, address):
                client(address, self.chain)

        self.test(f"client {name}", case)

    def server(self, name, command, **options):
        """A server of theirs: a function that gives its command for an address."""

        def case():
            address = free_port()
            with Running(command(address), address, **options):
                self.download(address)

        self.test(f"server {name}", case)

    def download(self, address):
        """Our client."""
        for name, content in FILES.items():
            found = run(self.get(address, name))
            expect(same(found, content), f"{name}: {len(found)} bytes")
        missing = subprocess.run(self.get(address, "missing"), capture_output=True, timeout=PATIENCE)
        expect(missing.returncode != 0 and b"404" in missing.stderr, f"missing: {missing}")

    def download_and_upload(self, address):
        """Our client, with a server that answers with the hash of what is sent there."""
        self.download(address)
        for name, content in FILES.items():
            found = run([*self.get(address, "upload"), self.site / name])
            expect(found.decode() == hashlib.sha256(content).hexdigest(), f"upload of {name}: {found}")

    def get(self, address, name):
        return [self.examples / "download", "%s:%d" % address, "localhost", f"/{name}", self.chain]

    def stack(self, name):
        """A program of perf/peers."""
        program = self.peers / f"{name}-peer"

        def client(address, roots):
            with tempfile.TemporaryDirectory() as output:
                arguments = ["--target", "%s:%d" % address, "--ca", roots, "--output", output]
                run([program, "http3-client", *arguments, *FILES])
                check_folder(pathlib.Path(output))

        self.client(name, client)
        files = ["--cert", self.chain, "--key", self.key, "--root", self.site]
        self.server(name, lambda address: [program, "http3-server", "--bind", "%s:%d" % address, *files])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", type=pathlib.Path)
    parser.add_argument("--peers", type=pathlib.Path, default=pathlib.Path())
    parser.add_argument("--stacks", nargs="*", default=[])
    parser.add_argument("--debian", type=pathlib.Path)
    parser.add_argument("--backends", nargs="+", default=["socket"])
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        cases = Cases(arguments, pathlib.Path(name))
        for version in http3_aioquic.VERSIONS:
            cases.client(f"aioquic {version}", functools.partial(http3_aioquic.client, version=version))
            served = (free_port(), cases.chain, cases.key, cases.download_and_upload, version)
            cases.test(f"server aioquic {version}", functools.partial(http3_aioquic.server, *served))
        try:
            import curl_cffi  # noqa: F401
        except ImportError:
            cases.tally.skip("HTTP/3: client curl_cffi", "it is not installed")
        else:
            cases.client("curl_cffi", curl_client)
        for stack in arguments.stacks:
            cases.stack(stack)
        if arguments.debian:
            http3_debian.pass_all(cases, arguments.debian)
        cases.tally.end()


main()
