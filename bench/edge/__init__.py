"""The edge: what an artifact weighs on the wire, and how soon and how fast it ranks in a browser."""
