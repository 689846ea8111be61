"""Questions that practitioners ask, answered on one's own log: the same requests, the same lists, one thing changed.

`python -m newsrec.experiment NAME` runs the cells of an experiment one after the other, keeps each when it is done, and
goes on where it was stopped. The way of the data: `config`, `questions` (which cells), `material` (lists, made once),
`cells` (one is drawn, fitted and measured), `kept`, `table`, `run`.
"""
