"""The documentation: pages, the examples they show, and `generate`, which keeps their facts true."""
