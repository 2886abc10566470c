"""Digits at real clients, over Flower: `task` is what both sides run.

On one machine, a SuperLink and four clients, each command in a terminal of its own:

    flower-superlink --insecure --disable-runtime-dependency-installation
    flower-supernode --insecure --superlink 127.0.0.1:8000 --port 9100 \\
        --node-config "partition-id=0"           (and so on: 9101 and 1, 9102 and 2, ...)
    flwr run examples/federated_flower here --stream

with, in `$FLWR_HOME/config.toml` (by default `~/.flwr/config.toml`):

    [superlink.here]
    address = "127.0.0.1:8000"
    insecure = true

Flower starts a process for each message, and a masked round takes five: it is a matter of
seconds, on two cores a minute. `-c rounds=20` asks for more rounds than five.

`--insecure` is for one machine: elsewhere give the SuperLink a certificate, and the
SuperNodes keys (`--enable-supernode-auth`), for who is who is Flower's business.
"""
