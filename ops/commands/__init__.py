"""The command line, one file per first word, whatever folder it is in: `ops/commands/run/stack.py` is `sluice stack …`.

care   what keeps a pool in order     run    what runs                    pool   the pool as a whole
work   deals, tasks, queues           money  earnings, stake, orders, transactions

Each file has `register(app)`, which adds its command or its group of commands. Only the file that the command line
names is imported, so that `sluice worker …` does not pay for the demo. A command parses, calls, prints: no logic here.
"""
