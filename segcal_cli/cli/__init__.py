"""The face: parses, makes one workflow call per command, prints. The only package that knows typer and rich."""
