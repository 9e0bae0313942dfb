"""A stand-in for the providers, over real HTTP, that keeps its own record of what it did.

It judges the delivery engine, so it shares no code with it: standard library and aiohttp only.
"""
