#!/usr/bin/env bash
# uvicorn 0.54.0 never closes a connection that sends no request, whatever its settings.
#
# Guess: `timeout_keep_alive` and `limit_concurrency` bound idle connections.
# Seen: the first counts from the end of an answer, so it closes a connection that has had one, and none that has not. The
# second refuses requests: connections beyond it stay open, a descriptor each.
# Environment: Linux, Python 3.12 or newer. Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q uvicorn==0.54.0 h11==0.16.0
seen=$("$folder/env/bin/python" - <<'PYTHON'
import asyncio
import uvicorn

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})

async def is_closed(reader):
    try:
        return await asyncio.wait_for(reader.read(), 5) is not None
    except TimeoutError:
        return False

async def main():
    config = uvicorn.Config(
        app, port=0, http="h11", log_config=None, lifespan="off", timeout_keep_alive=1, limit_concurrency=4
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    address = server.servers[0].sockets[0].getsockname()
    idle = [await asyncio.open_connection(*address) for _ in range(10)]
    used = await asyncio.open_connection(*address)
    used[1].write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    results = await asyncio.gather(is_closed(used[0]), *(is_closed(reader) for reader, _ in idle))
    print("a connection with an answer is closed:", results[0])
    print("idle connections that are closed after 5 s:", sum(results[1:]), "of 10")
    for _, writer in [*idle, used]:
        writer.close()
    server.should_exit = True
    await serving

asyncio.run(main())
PYTHON
)
echo "$seen"
expected='a connection with an answer is closed: True
idle connections that are closed after 5 s: 0 of 10'
[[ $seen == "$expected" ]] || { echo "changed; expected: $expected" >&2; exit 1; }
