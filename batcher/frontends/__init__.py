"""How clients come in: the endpoints, and one folder for each protocol that carries them."""
