"""What a server shows to people: why the batches of a model are as they are."""
