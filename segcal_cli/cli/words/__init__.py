"""The words of every option, one module per family of commands.

The records of ``workflows/requests.py`` hold types and defaults; these tables hold spelling and help. A command takes
whole records as parameters, and ``cli/options.py`` turns each field into an option of its own, so that no option is
declared twice and every command spells it the same.
"""
