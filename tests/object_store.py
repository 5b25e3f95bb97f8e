"""An S3 server for tests, and a connection to it that can be cut."""

import contextlib
import itertools
import logging
import secrets
import socket
import threading
from collections.abc import Iterator

from harness.url import Url, place


class Buckets:
    """The server of moto in a thread, behind a proxy that tests can make to drop connections."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self.numbers = itertools.count()

    def __enter__(self) -> "Buckets":
        import boto3

        self.server.start()
        self.proxy = Proxy(self.server.get_host_and_port())
        self.env = {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.proxy.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL_S3"],
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.create_bucket(Bucket="studies")
        client.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.close()
        self.server.stop()

    def place(self) -> Url:
        """A prefix that nothing lies under."""
        found = place(f"s3://studies/{next(self.numbers)}-{secrets.token_hex(2)}")
        assert isinstance(found, Url)
        return found


class Proxy:
    """Passes connections on to `target`; with `budget` set, cuts all of them after so many bytes towards it."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.budget: int | None = None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @contextlib.contextmanager
    def cut_after(self, size: int) -> Iterator[None]:
        """Every connection is cut once `size` bytes went up in all, and none gets through after that."""
        self.budget = size
        try:
            yield
        finally:
            self.budget = None

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self.target) as server:
            threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()
            self._pass(client, server, True)

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                if counted and self.budget is not None:
                    self.budget -= len(data)
                    if self.budget < 0:
                        break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
