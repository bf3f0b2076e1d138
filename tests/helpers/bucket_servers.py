"""Emulators of buckets on loopback, from the package registry: gcp-storage-emulator and moto.

gcp-storage-emulator ignores preconditions on generations and the range of names to list, fails on
empty objects, and does not send the generation with an object's contents. These are added here, as
are outages, a log of the requests, and a function that is called at each of them.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Generator
from functools import partial
from http import server
from urllib.parse import parse_qs, unquote, urlparse

BUCKET = "a-bucket"
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # read when gcsfs is imported


class Faults:
    """What a server does besides answering.

    Attributes:
      status: the answer to everything while it is set; 0: connections are closed without one.
      requests: "METHOD key" of all objects' requests.
      at: called with (method, key) before each request of an object is served.
    """

    def __init__(self):
        self.status: int | None = None
        self.requests: list[str] = []
        self.at: Callable[[str, str], None] = lambda method, key: None
        self.listed = ["", ""]  # the range of the names of the list under way


def gcs_handler(storage, faults):
    import gcp_storage_emulator.server as emulator
    from gcp_storage_emulator.exceptions import NotFound

    read_data = emulator._read_data

    def read_any(handler, query):
        data = read_data(handler, query)
        return b"" if data is None and query.get("uploadType") == ["media"] else data

    emulator._read_data = read_any

    class Handler(emulator.RequestHandler):
        """The emulator's handler with preconditions on generations and faults."""

        def __init__(self, *arguments):
            super().__init__(storage, *arguments)

        def object(self):
            """Bucket, key and generation of the request's object; generation 0: there is none."""
            url = urlparse(self.path)
            parts, query = url.path.split("/"), parse_qs(url.query)
            if "b" not in parts or "o" not in parts:
                return "", "", 0
            bucket = parts[parts.index("b") + 1]
            key = unquote("/".join(parts[parts.index("o") + 1 :])) or query.get("name", [""])[0]
            try:
                return bucket, key, int(storage.get_file_obj(bucket, key)["generation"])
            except (NotFound, KeyError):
                return bucket, key, 0

        def answer(self, method, serve):
            _, key, generation = self.object()
            faults.requests.append(f"{method} {key}")
            faults.at(method, key)
            if faults.status is not None:
                if faults.status:
                    self.read_body()
                    self.send_error(faults.status)
                self.close_connection = True
                return
            query = parse_qs(urlparse(self.path).query)
            for name, wanted in (("ifGenerationMatch", True), ("ifGenerationNotMatch", False)):
                if name in query and (int(query[name][0]) == generation) is not wanted:
                    self.read_body()
                    self.send_error(304 if method == "GET" and not wanted else 412)
                    return
            if method == "GET" and not key:
                bucket = urlparse(self.path).path.split("/")[-2]
                if bucket not in storage.buckets:
                    body = b'{"error": {"code": 404, "message": "no such bucket"}}'
                    self.send_response(404)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                faults.listed = [query.get(f"{end}Offset", [""])[0] for end in ("start", "end")]
            serve()

        def read_body(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def end_headers(self):
            if "alt=media" in self.path:
                self.send_header("x-goog-generation", str(self.object()[2]))
            super().end_headers()

        def do_GET(self):
            self.answer("GET", super().do_GET)

        def do_POST(self):
            self.answer("POST", super().do_POST)

        def do_PUT(self):
            self.answer("PUT", super().do_PUT)

        def do_DELETE(self):
            self.answer("DELETE", super().do_DELETE)

        def log_message(self, *arguments):
            pass

    return Handler


# TensorStore reads the address of GCS once in a process.
PORT = [0]


@contextlib.contextmanager
def gcs() -> Generator[tuple[dict[str, str], Faults], None, None]:
    """A GCS with one bucket; yields the variables of the environment that lead to it, and its
    faults."""
    from gcp_storage_emulator.handlers.buckets import create_bucket
    from gcp_storage_emulator.storage import Storage

    storage, faults = Storage(use_memory_fs=True), Faults()
    list_all = storage.get_file_list

    def list_range(*arguments, **options):
        files, prefixes = list_all(*arguments, **options)
        start, end = faults.listed
        inside = [file for file in files if file["name"] >= start]
        return [file for file in inside if not end or file["name"] < end], prefixes

    storage.get_file_list = list_range
    create_bucket(BUCKET, storage)
    httpd = server.HTTPServer(("127.0.0.1", PORT[0]), gcs_handler(storage, faults))
    thread = threading.Thread(target=partial(httpd.serve_forever, 0.05), daemon=True)
    thread.start()
    PORT[0] = httpd.server_address[1]
    url = f"http://127.0.0.1:{httpd.server_address[1]}"
    try:
        yield (
            {
                "TENSORSTORE_GCS_HTTP_URL": url,
                "STORAGE_EMULATOR_HOST": url,
                "GOOGLE_CLOUD_PROJECT": "a-project",
                "NO_GCE_CHECK": "true",
            },
            faults,
        )
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@contextlib.contextmanager
def s3() -> Generator[tuple[dict[str, str], None], None, None]:
    """An S3 with one bucket, as `gcs`."""
    from moto.server import ThreadedMotoServer

    httpd = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    httpd.start()
    try:
        host, port = httpd.get_host_and_port()
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        import boto3

        boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="x",
            aws_secret_access_key="y",
            region_name="us-east-1",
        ).create_bucket(Bucket=BUCKET)
        yield environment, None
    finally:
        httpd.stop()


KINDS = {"gs": gcs, "s3": s3}


@contextlib.contextmanager
def serving(scheme: str) -> Generator[tuple[str, Faults | None], None, None]:
    """A bucket with the environment of this process set; yields its URL and its faults."""
    before = dict(os.environ)
    with KINDS[scheme]() as (environment, faults):
        os.environ.update(environment)
        try:
            yield f"{scheme}://{BUCKET}", faults
        finally:
            os.environ.clear()
            os.environ.update(before)
            forget()


def forget():
    """Closes what libraries keep of a server that is gone."""
    import fsspec
    from etils.epath import backend
    from orbax.checkpoint._src.path import gcs_utils

    for name in ("gcs", "s3"):
        with contextlib.suppress(ImportError):
            fsspec.get_filesystem_class(name).clear_instance_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()
    gcs_utils.get_bucket.cache_clear()
