"""Credentials and endpoints of object stores for fsspec and GDAL: one set of environment variables serves both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geopsp.core.store_variables import FALSE, TRUE, get_variable, s3_endpoint
from geopsp.core.time_limit import server_options


def _s3_options() -> dict[str, Any]:
    """Return s3fs's options; keys, profile and token botocore reads itself from the same variables."""
    addressing = {"addressing_style": "path"} if get_variable("AWS_VIRTUAL_HOSTING") in FALSE else {}
    seconds = server_options()
    region = get_variable("AWS_REGION", "AWS_DEFAULT_REGION")
    return {
        "anon": get_variable("AWS_NO_SIGN_REQUEST") in TRUE,
        "endpoint_url": s3_endpoint(),
        "client_kwargs": {"region_name": region} if region else {},
        "config_kwargs": {
            "retries": {"max_attempts": 1, "mode": "standard"},  # `_retried` does it, for all stores alike
            "connect_timeout": float(seconds["GDAL_HTTP_CONNECTTIMEOUT"]),
            "read_timeout": float(seconds["GDAL_HTTP_TIMEOUT"]),
            **({"s3": addressing} if addressing else {}),
        },
    }


def _gs_options() -> dict[str, Any]:
    anonymous = {"token": "anon"} if get_variable("GS_NO_SIGN_REQUEST") in TRUE else {}
    endpoint = get_variable("CPL_GS_ENDPOINT")
    return anonymous | ({"endpoint_url": endpoint.rstrip("/")} if endpoint else {})


def _az_options() -> dict[str, Any]:
    names = {
        "connection_string": "AZURE_STORAGE_CONNECTION_STRING",
        "account_name": "AZURE_STORAGE_ACCOUNT",
        "account_key": "AZURE_STORAGE_ACCESS_KEY",
        "sas_token": "AZURE_STORAGE_SAS_TOKEN",
    }
    given = {option: value for option, name in names.items() if (value := get_variable(name))}
    return given | ({"anon": True} if get_variable("AZURE_NO_SIGN_REQUEST") in TRUE else {})


STORE_OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {"s3": _s3_options, "gs": _gs_options, "az": _az_options}
