"""Search over the ranker's parameters; its only product is a params file that `newsrec.train --params` reads."""
