"""The corpora of the field, each a value with its recipe: a dataset on the hub, the column that holds the text, GPT-2's
tokenizer, and a share of documents to hold out that leaves what the published budgets train on.

The commit of a dataset is looked up when a study is registered, and written down; `replace(C4, revision=...)` names
one. `size` is what the dataset's own card or files say, for the estimate of a plan, and no part of the identity.
Licences are those of the collections: rights in the single documents stay with who wrote them.
"""

from harness.sources.text import Text

OPENWEBTEXT = Text("Skylion007/openwebtext", held_out=0.0005, size=39_769_491_688)
"""Web pages that Reddit linked to: 8,013,769 documents, 9.04 billion GPT-2 tokens of which 4.4 million are held out.
Packaged under CC0. Gokaslan and Cohen, "OpenWebText Corpus" (2019). The paper (arXiv 2603.10055) trains 9.0 billion
tokens of it, lr 5e-4, weight decay 1e-4."""

OPENWEBMATH = Text("open-web-math/open-web-math", held_out=0.0005, size=56_651_995_057)
"""Mathematics from Common Crawl: 6,315,233 documents, 14.7 billion tokens by its authors' count. ODC-By 1.0, with the
terms of Common Crawl. Paster et al., "OpenWebMath" (2023, arXiv 2310.06786). The paper trains 4.2 billion tokens, lr
5e-4; its released code reads the filtered gair-prox/open-web-math-pro instead."""

CODEPARROT = Text("codeparrot/codeparrot-train-v2-near-dedup", column="content", held_out=0.0005, size=26_000_000_000)
"""Python files from GitHub, cleaned and near-deduplicated: 2.77 million. Each has a licence of its own, in the column
`license`. Tunstall et al., "Natural Language Processing with Transformers" (2022). The paper trains 12.6 billion
tokens, lr 2e-4, 750 steps of warmup, no weight decay. Its code validates on codeparrot-valid-v2-near-dedup; here files
are held out of the training set. `size` is estimated from the 9.4 kB a file of codeparrot-clean."""

C4 = Text("allenai/c4", config="en", held_out=0.0001, size=828_588_742_863)
"""Common Crawl of April 2019, cleaned: 364,868,892 documents, about 156 billion tokens, of which some 16 million are
held out. ODC-By, with the terms of Common Crawl. Raffel et al. (2020, arXiv 1910.10683); this packaging Dodge et al.
(2021, arXiv 2104.08758). The paper warms up on 164 million and 1.64 billion tokens of it: for those
`replace(C4, documents=5_000_000)` is enough, and much less to tokenise."""

FINEWEB_EDU = Text("HuggingFaceFW/fineweb-edu", config="sample-10BT", held_out=0.0005, size=47_000_000_000)
"""Educational pages of Common Crawl, chosen by a classifier: a sample of 9.67 million documents, about 10 billion GPT-2
tokens of which some 5 million are held out. ODC-By 1.0, with the terms of Common Crawl. Penedo et al., "The FineWeb
Datasets" (2024, arXiv 2406.17557). `size` is estimated from 4.7 bytes a token."""
