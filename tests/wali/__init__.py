"""WALI programs of ours: what they are made of is in `guests`, how they are made in `building`."""
