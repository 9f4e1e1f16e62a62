"""How docs/ becomes a site."""
