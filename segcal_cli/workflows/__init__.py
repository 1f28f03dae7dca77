"""One module per command: folders in; an artifact, a folder or a table out. The only place where the packages meet."""
