"""Environment variables of GDAL and Amazon that say where objects are stored."""

from __future__ import annotations

import os

TRUE, FALSE = {"YES", "TRUE", "ON", "1"}, {"NO", "FALSE", "OFF", "0"}
"""GDAL's words."""


def get_variable(*names: str) -> str:
    """Return the first of these environment variables that is set; GDAL's words for yes and no in upper case."""
    value = next((value for name in names if (value := os.environ.get(name))), "")
    return value.upper() if value.upper() in TRUE | FALSE else value


def s3_endpoint() -> str | None:
    """Return the URL of another service than Amazon's: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or GDAL's variables."""
    if url := get_variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        return url
    host = get_variable("AWS_S3_ENDPOINT")
    if not host or "://" in host:
        return host or None
    return f"{'http' if get_variable('AWS_HTTPS') in FALSE else 'https'}://{host}"


def gdal_s3_options() -> dict[str, str]:
    """Return GDAL's options for the endpoint that Amazon's own variables name."""
    url = get_variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if not url:
        return {}
    scheme, _, host = url.partition("://")
    return {
        "AWS_S3_ENDPOINT": host.rstrip("/"),
        "AWS_HTTPS": "NO" if scheme == "http" else "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }
