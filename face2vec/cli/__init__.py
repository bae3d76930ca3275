"""The command line, one module per group of commands.

In: arguments.
Out: results on stdout, messages on stderr, exit codes.
May import: all other packages; nothing imports it.
"""
