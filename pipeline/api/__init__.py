"""The scheduler's HTTP API: for workers (sign in, ping, report, store results), requesters (the iExec SDK), monitors.

    serve ── application ─┬─ workers      challenge, login, ping
                          ├─ reports      a worker's step  ┐ one conditional update in the store, then a message to
                          ├─ results/     a result's zip   ┘ the pipeline and an event for Flower
                          ├─ tasks        tasks, deals, logs as the SDK wants them
                          ├─ operations   configuration, health, metrics
                          └─ admin/       the operator's API, on a port of its own
    on the way: auth/ (who asks), limits/ (how much, how often)

All input is from outside: sizes are capped before parsing, shapes are checked by `protocol.wire`, and
what concerns the chain is accepted only if the folded logs confirm it. No decision about a task lives here.
"""
