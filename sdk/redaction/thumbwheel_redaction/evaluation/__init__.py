"""How well the recognisers do, on sentences whose values are known because they were made up.

    templates ──┐
    values   ───┼──generate──► labelled sentences ──score──► precision and recall of each kind, with 95 % intervals
    decoys   ───┘                                  (Redactor)

`python -m thumbwheel_redaction.evaluation` prints the table. Nothing here uses a pattern or a check of the
recognisers: check digits are worked out anew, so that a mistake on one side shows. Half of the templates are held
out: they are for reading the result, not for improving the recognisers.

Made-up sentences say how the recognisers do on what their author thought of. For your own texts there is `python -m
thumbwheel_redaction.evaluation --texts FILE`, which counts what is found in them.
"""
