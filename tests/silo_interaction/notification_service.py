"""A notification service on the session's bus, for `test_desktop.py`: it records each call as a line of JSON.

    python notification_service.py RECORD answer|error|silence|garbage

It prints a line once it owns its name.
"""

import itertools
import json
import sys

from jeepney import HeaderFields, MessageType, new_error, new_method_return
from jeepney.io.blocking import open_dbus_connection

NAME = "org.freedesktop.Notifications"


def serve(record: str, manner: str) -> None:
    ids = itertools.count(41)
    with open_dbus_connection("SESSION") as bus, open(record, "w") as out:
        bus.bus_proxy.RequestName(NAME)
        print("ready", flush=True)
        while True:
            message = bus.receive()
            fields = message.header.fields
            if message.header.message_type is not MessageType.method_call or fields.get(HeaderFields.interface) != NAME:
                continue
            method = fields[HeaderFields.member]
            out.write(json.dumps({"method": method, "body": message.body}) + "\n")
            out.flush()
            if manner == "silence":
                continue
            if manner == "error":
                bus.send(new_error(message, f"{NAME}.Error.Busy", "s", ("no more of them",)))
            elif manner == "garbage":
                bus.send(new_method_return(message, "s", ("no number",)))
            elif method == "Notify":
                replaces = message.body[1]
                bus.send(new_method_return(message, "u", (replaces or next(ids),)))
            else:
                bus.send(new_method_return(message))


serve(*sys.argv[1:])
