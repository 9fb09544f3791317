"""What happened: the schema, the journal and the machine."""
