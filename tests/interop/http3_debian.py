"""Programs of Debian's packages that speak HTTP/3: ngtcp2, curl, nginx, HAProxy, Caddy, as packages.sh has unpacked them."""

import contextlib
import functools
import http.server
import os
import pathlib
import tempfile
import threading

from http3_harness import FILES, check_folder, expect, run, same

# What they write to is in a folder of the test.
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address} quic;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        root {site};
    }}
}}
"""
# Without the calls of QUIC TLS libraries it has a way of its own.
HAPROXY = """
global
    limited-quic
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
frontend http3
    bind quic4@{address} ssl crt {both} alpn h3
    default_backend files
backend files
    server files 127.0.0.1:{files}
"""
CADDY = """
{{
    admin off
    auto_https disable_redirects
}}
https://localhost:{port} {{
    bind 127.0.0.1
    tls {chain} {key}
    root * {site}
    file_server
}}
"""


def program(tree, path):
    """How to run it: by the dynamic linker and with the libraries that came with it."""
    return [tree / "usr/lib64/ld-linux-x86-64.so.2", "--library-path", tree / "usr/lib/x86_64-linux-gnu", tree / path]


@contextlib.contextmanager
def plain_http(site):
    """A server of HTTP/1 for these files; gives its port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def ngtcp2_client(tree, version, address, roots):
    with tempfile.TemporaryDirectory() as output:
        urls = [f"https://localhost:{address[1]}/{name}" for name in FILES]
        options = ["--quiet", "--exit-on-all-streams-close", f"--version={version}", f"--available-versions={version}", f"--download={output}"]
        run([*program(tree, "usr/bin/gtlsclient"), *options, *map(str, address), *urls])
        # It makes no file of nothing.
        check_folder(pathlib.Path(output), [name for name in FILES if FILES[name]])


def curl(tree, address, roots):
    for name, content in FILES.items():
        command = [*program(tree, "usr/bin/curl"), "--silent", "--show-error", "--fail", "--http3-only", "--cacert", roots]
        found = run([*command, f"https://localhost:{address[1]}/{name}"])
        expect(same(found, content), f"{name}: {len(found)} bytes")


def pass_all(cases, tree):
    folder, site, chain, key = cases.folder, cases.site, cases.chain, cases.key
    both = folder / "both.pem"
    both.write_bytes(chain.read_bytes() + key.read_bytes())

    def configured(name, text, **values):
        path = folder / name
        path.write_text(text.format(folder=folder, site=site, chain=chain, key=key, both=both, **values))
        return path

    for version in ("v1", "v2"):
        cases.client(f"ngtcp2 {version}", functools.partial(ngtcp2_client, tree, version))
    if b"HTTP3" in run([*program(tree, "usr/bin/curl"), "--version"]):
        cases.client("curl", functools.partial(curl, tree))
    else:
        cases.tally.skip("HTTP/3: client curl", "the one of this package has no HTTP/3")

    gtlsserver = [*program(tree, "usr/sbin/gtlsserver"), "--quiet", "-d", site]
    cases.server("ngtcp2", lambda address: [*gtlsserver, *map(str, address), key, chain])

    def nginx(address):
        path = configured("nginx.conf", NGINX, address="%s:%d" % address)
        return [*program(tree, "usr/sbin/nginx"), "-e", "stderr", "-p", folder, "-c", path]

    cases.server("nginx", nginx)
    with plain_http(site) as files:

        def haproxy(address):
            path = configured("haproxy.cfg", HAPROXY, address="%s:%d" % address, files=files)
            return [*program(tree, "usr/sbin/haproxy"), "-db", "-f", path]

        cases.server("haproxy", haproxy)

    def caddy(address):
        path = configured("Caddyfile", CADDY, port=address[1])
        return [tree / "usr/bin/caddy", "run", "--config", path, "--adapter", "caddyfile"]

    home = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    cases.server("caddy", caddy, env=home)
