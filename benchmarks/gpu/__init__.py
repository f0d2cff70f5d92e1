"""What a GPU must show, as one run of some minutes: `make gpu`."""
