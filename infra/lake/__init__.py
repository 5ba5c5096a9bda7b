"""The lake from the command line: look into the tables, take data sets out of them, bring data in through the log.

    catalog   names, versions, read-only handles         commits   the Delta log: who changed what, when
    reading   current rows of a version                  overview, diff, show    what is printed of them
    shapes, export, files_out, content                   rows as TRL's data sets, written whole or not at all
    sources, mapping, formats, label_studio              rows of somebody else's file, as drafts
    redacting, events, importing                         drafts without personal data, as ordinary events

Nothing here writes a table: an import is events, and meets ingest like everything else.
"""
