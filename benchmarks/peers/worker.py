"""What the peers' processes have in common: when to begin, whom to call, and what to tell."""

import asyncio
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from benchmarks import usage

CONNECTIONS = 100  # as many as the pipeline is given
TEXT = "x" * 270


def arguments() -> Namespace:
    parser = ArgumentParser()
    parser.add_argument("database", help="an empty one, or as an earlier run left it")
    parser.add_argument("provider")
    parser.add_argument("jobs", type=int)
    parser.add_argument("--outcomes", action="store_true", help="a row for each, with its answer")
    return parser.parse_args()


@asynccontextmanager
async def clock() -> AsyncIterator[None]:
    """Say that the jobs are there, wait for the word, and tell what the work in this block took."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    before = time.process_time()
    yield
    told = {"cpu": time.process_time() - before, "peak_mib": usage.peak_mib()}
    print(json.dumps(told), flush=True)


def session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS))


async def call(session: aiohttp.ClientSession, provider: str, key: str, body: bytes) -> int:
    """The answer's status."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    async with session.post(provider, data=body, headers=headers) as response:
        await response.read()
        return response.status
