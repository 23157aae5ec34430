"""A throw-away server with sessions in it, to look at: `make demo` or `make demo CORPUS=dir`.

Starts opensession.py and runs daemon.py once, as a user would, with a home folder of their
own below a temporary directory.  Prints a link that signs in, and stays until Ctrl-C; then
everything is removed.  Nothing leaves this machine.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER, DAEMON = HERE.parent / "opensession.py", HERE.parent / "daemon.py"
SAMPLES = HERE / "fixtures" / "samples"


@contextlib.contextmanager
def demo_server(corpus=SAMPLES):
    """A running server that holds the sessions found in `corpus`; gives (address, API key)."""
    with tempfile.TemporaryDirectory(prefix="opensession-demo-") as folder, demo_in(folder, corpus) as demo:
        yield demo


@contextlib.contextmanager
def demo_in(folder, corpus=SAMPLES):
    """The same in a folder that stays: its data lies in `data`."""
    port = free_port()
    address = f"http://localhost:{port}"
    # Not our own environment: settings and keys of the person who looks must not count here.
    environ = {"PATH": os.environ["PATH"], "HOME": folder, "PORT": str(port),
               "OPENSESSION_DATA_DIR": f"{folder}/data", "OPENSESSION_LOG": "warn"}
    with running([sys.executable, SERVER], environ, f"{folder}/server.log"):
        wait_until_up(address, f"{folder}/server.log")
        run_daemon(environ, "login", address, "--nickname", "ada")
        run_daemon(environ, "once", os.path.abspath(corpus))
        yield address, saved_key(folder)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(command, environ, log_path):
    """A process that is stopped at the end."""
    with open(log_path, "wb") as log:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def wait_until_up(address, log_path, seconds=60):
    """Return when the server answers; exit with its log where it does not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}/api/health", timeout=1).close()
            return
        time.sleep(0.05)
    sys.exit(f"The server did not start:\n{Path(log_path).read_text()}")


def run_daemon(environ, *arguments):
    """Run daemon.py to its end.  What it could not read is its own to say, and no reason to stop."""
    subprocess.run([sys.executable, DAEMON, *arguments], env=environ, stdin=subprocess.DEVNULL)


def saved_key(home):
    """The API key that `daemon.py login` wrote down."""
    with open(Path(home) / ".config" / "opensession" / "daemon.toml", "rb") as file:
        return tomllib.load(file)["server"]["api_key"]


def main(corpus=SAMPLES):
    corpus = os.path.expanduser(corpus)
    if not Path(corpus).exists():
        sys.exit(f"There is no {corpus}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), demo_server(corpus) as (address, key):
        print(f"\nThe demo runs on {address}\nOpen this link to sign in:  {address}/#key={key}\n"
              "Ctrl-C ends it and removes everything.", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
