"""The command line, one file per first word: `ops/commands/stack.py` is `sluice stack …`.

Each file has `register(app)`, which adds its command or its group of commands. Only the file that the command line
names is imported, so that `sluice worker …` does not pay for the demo. A command parses, calls, prints: no logic here.
"""
