"""The shim for aioresponses in tests/conftest.py works, and is still needed."""

import importlib.util
import sys

import aiohttp
import pytest
from aioresponses import aioresponses
from aioresponses import core as patched_core

URL = "https://receiver.example/hook"


@pytest.mark.parametrize("status", [200, 429, 503])
async def test_a_mocked_answer_reaches_the_client(status: int):
    with aioresponses() as mocked:
        mocked.post(URL, status=status, headers={"Retry-After": "7"}, body=b"text")
        async with aiohttp.ClientSession() as session, session.post(URL, data=b"{}") as answer:
            assert answer.status == status
            assert answer.headers["Retry-After"] == "7"
            assert await answer.read() == b"text"


async def test_the_shim_is_still_needed():
    """Once this fails, aioresponses works by itself: take the shim out of tests/conftest.py."""
    spec = importlib.util.find_spec("aioresponses.core")
    assert spec is not None
    assert spec.loader is not None
    untouched = importlib.util.module_from_spec(spec)
    sys.modules["untouched_core"] = untouched
    try:
        spec.loader.exec_module(untouched)
        assert vars(untouched)["ClientResponse"] is not vars(patched_core)["ClientResponse"]
        with untouched.aioresponses() as mocked:
            mocked.post(URL, status=200)
            async with aiohttp.ClientSession() as session:
                with pytest.raises(TypeError, match="stream_writer"):
                    await session.post(URL, data=b"{}")
    finally:
        del sys.modules["untouched_core"]
