"""The thin layer that knows Ray: it imports the domain code and never the other way round."""
