"""
The one package that talks to the API server.

`client` sends requests and turns answers into our values and errors; `reflector` keeps a `store` equal to
what the API server has; `patches` (pure) makes the smallest patch between two statuses; `events` tells
people. Nothing outside knows aiohttp or `kubernetes_asyncio` from here.
"""
